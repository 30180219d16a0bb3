"""A training of `project.fit`, kept in the report's folder: one that is finished is read again."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer

from callbacks.interrupt import Interrupted
from project.recorded_run import RecordedRun
from project.reproduce.record import Task


class Training(NamedTuple):
    """What a training left behind."""

    record: dict[str, Any]
    """results.json"""
    losses: np.ndarray[Any, np.dtype[np.float32]]
    """(iterations,)"""
    checkpoint: Path


def train(
    task: Task, config: str, seed: int, epochs: int, progress: Callable[[float], None]
) -> Training:
    """Trains and tests an experiment as `python -m project.fit` does, unless that was done before.

    Args:
        task: says where the data is, where the run goes and whether to do it again.
        config: name of the experiment.
        seed: of the run.
        epochs: how long.
        progress: called with the share that is done.
    """
    name = f"{config}-{epochs}-epochs-seed-{seed}"
    done = None if task.force else find(task.folder, name)
    if done is None:
        options = [
            f"--config={config}",
            f"--name={name}",
            f"--seed_everything={seed}",
            f"--data.root={task.root}",
            f"--trainer.max_epochs={epochs}",
        ]
        # Runs go below the current folder.
        with contextlib.chdir(task.folder), contextlib.redirect_stdout(io.StringIO()):
            _fit(options, progress)
        done = find(task.folder, name)
        assert done is not None, "a training that ended has its results"
    progress(1.0)
    return done


def find(folder: Path, name: str) -> Training | None:
    """The newest finished run of that name."""
    # The last that a run writes.
    results = list(folder.glob(f"runs/{name}/version_*/results.json"))
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
    try:
        cli.trainer.fit(cli.model, datamodule=cli.datamodule)
    except Interrupted:
        print("Stopped; the same command goes on behind the finished trainings.", file=sys.stderr)
        raise
    cli.trainer.test(cli.model, datamodule=cli.datamodule, verbose=False)


class PartDone(Callback):
    """Reports which part of the blocks of a training is done."""

    def __init__(self, progress: Callable[[float], None]) -> None:
        self._progress = progress

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts one block."""
        blocks = int(trainer.num_training_batches)
        done = trainer.current_epoch * blocks + batch_idx + 1
        self._progress(done / (blocks * (trainer.max_epochs or 1)))
