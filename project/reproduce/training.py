"""Trainings of `project.fit` in the report's folder; finished ones are read, not repeated."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer

from project.recorded_run import RecordedRun
from project.reproduce.record import Task


class Wanted(NamedTuple):
    """A training that the report needs."""

    config: str
    """Name of the configuration."""
    seed: int
    epochs: int | None = None
    """Number of epochs; None for that of the configuration."""

    @property
    def name(self) -> str:
        """The name of its run."""
        length = "" if self.epochs is None else f"{self.epochs}-epochs-"
        return f"{self.config}-{length}seed-{self.seed}"


class Training(NamedTuple):
    """The results of a finished training."""

    record: dict[str, Any]
    """Content of results.json."""
    losses: np.ndarray[Any, np.dtype[np.float32]]
    """(iterations,)"""
    checkpoint: Path


def train(task: Task, wanted: Wanted, progress: Callable[[float], None]) -> Training:
    """Trains and tests as `python -m project.fit` does.

    Args:
        task: gives the folders of the data and of the run.
        wanted: the training.
        progress: called with the share that is done.
    """
    options = [
        f"--config={wanted.config}",
        f"--name={wanted.name}",
        f"--seed_everything={wanted.seed}",
        f"--data.root={task.root}",
        # The report draws its own figures and shows its own progress.
        "--figures=none",
        "--trainer.enable_progress_bar=false",
    ]
    if wanted.epochs is not None:
        options.append(f"--trainer.max_epochs={wanted.epochs}")
    # Runs are written below the current folder.
    with contextlib.chdir(task.folder), contextlib.redirect_stdout(io.StringIO()):
        _fit(options, progress)
    done = find(task.folder, wanted)
    assert done is not None, "a training that ended has its results"
    return done


def find(folder: Path, wanted: Wanted) -> Training | None:
    """Returns the newest finished run of a training; None if there is none."""
    # The last file that a run writes.
    results = list(folder.glob(f"runs/{wanted.name}/version_*/results.json"))
    if not results:
        return None
    newest = max(results, key=_written)
    checkpoint = max(newest.parent.glob("checkpoints/*.ckpt"), key=_written)
    record = json.loads(newest.read_text(encoding="utf-8"))
    return Training(record, np.load(newest.with_name("losses.npy")), checkpoint)


def _written(path: Path) -> int:
    return path.stat().st_mtime_ns


def _fit(options: list[str], progress: Callable[[float], None]) -> None:
    cli = RecordedRun(options, "Trains for the report.")
    # Lightning sets this attribute where mypy does not look.
    cli.trainer.callbacks.append(PartDone(progress))  # type: ignore[attr-defined]
    cli.trainer.fit(cli.model, datamodule=cli.datamodule)
    cli.trainer.test(cli.model, datamodule=cli.datamodule, verbose=False)


class PartDone(Callback):
    """Reports the share of the blocks of a training that is done."""

    reads_blocks = True

    def __init__(self, progress: Callable[[float], None]) -> None:
        self._progress = progress

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts one block."""
        blocks = int(trainer.num_training_batches)
        done = trainer.current_epoch * blocks + batch_idx + 1
        self._progress(done / (blocks * (trainer.max_epochs or 1)))
