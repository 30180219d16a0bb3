"""TensorBoard logging for runs whose iterations take microseconds."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from torch.utils.tensorboard import SummaryWriter

from callbacks.event_file import EventFile, Floats
from callbacks.run_folder import RunFolder


class TensorBoard(TensorBoardLogger):
    """Lightning's logger in the folder of a run, with fast logging of whole series of scalars.

    Args:
        folder: folder of the run.
        left_out: suffixes of the metrics that are not logged as curves, such as counts.
        options: further arguments of Lightning's logger.
    """

    def __init__(
        self, folder: RunFolder, *, left_out: tuple[str, ...] = (), **options: Any
    ) -> None:
        super().__init__(folder.parent.parent, name=folder.parent.name, **options)
        self._folder = folder
        self._left_out = left_out

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Logs the metrics whose name has none of the suffixes `left_out`."""
        curves = {name: metrics[name] for name in metrics if not name.endswith(self._left_out)}
        super().log_metrics(curves, step)

    @property
    def version(self) -> int | str:
        """The name of the folder; a placeholder on the other ranks, which write nothing."""
        first = rank_zero_only.rank == 0  # type: ignore[attr-defined]
        return self._folder.path.name if first else "version_0"

    @property
    @rank_zero_experiment
    def experiment(self) -> SummaryWriter:
        """The `SummaryWriter`, which writes into an `EventFile`."""
        writer: SummaryWriter = super().experiment
        files = writer.file_writer  # None once the writer was closed
        if files is not None and not isinstance(files.event_writer, EventFile):
            files.event_writer.close()
            files.event_writer = EventFile(Path(files.event_writer._file_name))
        return writer

    def forget_after(self, step: int) -> None:
        """Makes TensorBoard drop what an earlier process logged for later steps."""
        start = SessionLog(status=SessionLog.START)
        self._events().add_event(Event(wall_time=time.time(), step=step + 1, session_log=start))

    def log_series(self, tag: str, first_step: int, values: Floats) -> None:
        """Logs scalars (K,) of consecutive iterations and flushes, so that they show at once."""
        events = self._events()
        events.add_series(tag, first_step, values)
        events.flush()

    def _events(self) -> EventFile:
        self.experiment._get_file_writer()  # opens a new file if the last one was closed
        events: EventFile = self.experiment.file_writer.event_writer
        return events
