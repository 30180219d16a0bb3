"""TensorBoard for runs whose iterations take microseconds."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch.loggers import TensorBoardLogger

from callbacks.event_file import EventFile, Floats


class TensorBoard(TensorBoardLogger):
    """Lightning's logger, with a fast way to log one scalar of many iterations."""

    def log_series(self, tag: str, first_step: int, values: Floats) -> None:
        """Logs scalars (K,) of consecutive iterations; TensorBoard can see them at once."""
        files = self.experiment._get_file_writer()
        stock = files.event_writer
        if not isinstance(stock, EventFile):
            stock.close()
            files.event_writer = EventFile(Path(stock._file_name))
        files.event_writer.add_series(tag, first_step, values)
        files.flush()
