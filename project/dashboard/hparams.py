"""TensorBoard's HPARAMS table: every run with its settings and results."""

from __future__ import annotations

import inspect
from types import NoneType
from typing import Any, get_args

from callbacks.tensorboard import TensorBoard
from project.experiments import EXPERIMENTS

# The table sorts its columns by name and shows the first five.
FIRST_COLUMNS = ("c3", "config", "loss", "lr", "seed")


def write(logger: TensorBoard, settings: dict[str, Any], record: dict[str, Any]) -> None:
    """Adds the settings and results of the run to the HPARAMS table.

    TensorBoard takes the columns of the table from any one of its runs, so each run names the
    columns of all. SummaryWriter.add_hparams would name only its own, in a separate run.
    """
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
    from torch.utils.tensorboard.summary import hparams

    writer = logger.experiment
    writer.add_scalar("weights/parameters", record["parameters"], record["iterations"])
    columns = _columns()
    about = settings | {key: record[key] for key in ("config", "seed", "iterations", "backend")}
    values = {
        name: about[name] if kind == "DATA_TYPE_FLOAT64" else str(about[name])
        for name, kind in columns.items()
        if about.get(name) is not None
    }
    experiment = api_pb2.Experiment(
        hparam_infos=[
            api_pb2.HParamInfo(name=name, type=kind, differs=name in FIRST_COLUMNS)
            for name, kind in columns.items()
        ],
        metric_infos=[
            api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag))
            for tag in ("test/accuracy", "test/loss", "time/train_seconds", "weights/parameters")
        ],
    )
    heading = Summary.Value(
        tag=metadata.EXPERIMENT_TAG,
        metadata=metadata.create_summary_metadata(
            plugin_data_pb2.HParamsPluginData(experiment=experiment)
        ),
        tensor=metadata.NULL_TENSOR,
    )
    _, start, end = hparams(values, {})  # type: ignore[no-untyped-call]
    for entry in (Summary(value=[heading]), start, end):
        writer.file_writer.add_summary(entry)


def _columns() -> dict[str, str]:
    """Returns the settings of all experiments, and TensorBoard's names of their types."""
    numbers = {"config": False, "seed": True, "iterations": True, "batch_size": True}
    for model, _ in EXPERIMENTS.values():
        for name, parameter in inspect.signature(model, eval_str=True).parameters.items():
            kinds = set(get_args(parameter.annotation)) or {parameter.annotation}
            # A column with text anywhere has text everywhere, or it could not be sorted.
            numbers[name] = numbers.get(name, True) and kinds <= {int, float, NoneType}
    return {
        name: "DATA_TYPE_FLOAT64" if number else "DATA_TYPE_STRING"
        for name, number in numbers.items()
    }
