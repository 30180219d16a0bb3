from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from callbacks.event_file import scalar_records
from callbacks.run_folder import RunFolder
from callbacks.tensorboard import TensorBoard


def one_by_one(tag, first_step, values, wall_time):
    """As TensorBoard's own writer does it."""
    buffer = io.BytesIO()
    for step, value in enumerate(values.tolist(), first_step):
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
        event = Event(wall_time=wall_time, step=step, summary=summary)
        RecordWriter(buffer).write(event.SerializeToString())
    return buffer.getvalue()


@given(
    tag=st.text(min_size=1, max_size=200),
    first_step=st.integers(1, 127) | st.integers(16_300, 16_400) | st.integers(1, 2**40),
    values=st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=130),
    wall_time=st.floats(1e9, 2e9),
)
def test_records_are_those_of_tensorboard(tag, first_step, values, wall_time):
    floats = np.array(values, np.float32)
    expected = one_by_one(tag, first_step, floats, wall_time)
    assert scalar_records(tag, first_step, floats, wall_time) == expected


def test_tensorboard_reads_series_and_single_scalars(tmp_path):
    logger = TensorBoard(RunFolder(tmp_path / "run", "version_0"))
    values = np.random.default_rng(0).random(300, dtype=np.float32)
    logger.log_metrics({"before": 1.0}, step=1)
    logger.log_series("train/loss", 1, values)
    logger.log_metrics({"after": 2.0}, step=300)
    logger.experiment.flush()
    events = EventAccumulator(logger.log_dir, size_guidance={"scalars": 0}).Reload()
    assert set(events.Tags()["scalars"]) == {"before", "train/loss", "after"}
    assert [event.step for event in events.Scalars("train/loss")] == list(range(1, 301))
    assert [event.value for event in events.Scalars("train/loss")] == values.tolist()
    assert len(list((tmp_path / "run").rglob("events*"))) == 1
    logger.finalize("success")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_numbers_arrive(value, tmp_path):
    logger = TensorBoard(RunFolder(tmp_path / "run"))
    logger.log_series("train/loss", 1, np.float32([value]))
    events = EventAccumulator(logger.log_dir).Reload()
    np.testing.assert_equal(events.Scalars("train/loss")[0].value, value)
    logger.finalize("success")
