"""Where a run keeps its files."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger


def run_folder(trainer: Trainer) -> Path | None:
    """The folder of the run's TensorBoard events; None for a run that writes nothing.

    Call it on every rank: the answer is a broadcast of the first one's.
    """
    if not isinstance(trainer.logger, TensorBoardLogger):
        return None
    folder = trainer.log_dir
    return None if folder is None else Path(folder)
