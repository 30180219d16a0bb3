"""TensorBoard for runs whose iterations take microseconds."""

from __future__ import annotations

from pathlib import Path

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.tensorboard import SummaryWriter

from callbacks.event_file import EventFile, Floats


class TensorBoard(TensorBoardLogger):
    """Lightning's logger, with a fast way to log one scalar of many iterations."""

    @property
    @rank_zero_experiment
    def experiment(self) -> SummaryWriter:
        """Writes whatever is not a scalar too."""
        writer: SummaryWriter = super().experiment
        files = writer.file_writer  # None once the writer was closed
        if files is not None and not isinstance(files.event_writer, EventFile):
            files.event_writer.close()
            files.event_writer = EventFile(Path(files.event_writer._file_name))
        return writer

    def log_series(self, tag: str, first_step: int, values: Floats) -> None:
        """Logs scalars (K,) of consecutive iterations; TensorBoard can see them at once."""
        self.experiment._get_file_writer()  # opens a new file where the last one was closed
        files = self.experiment.file_writer
        files.event_writer.add_series(tag, first_step, values)
        files.flush()
