"""Ctrl-C and SIGTERM end a training in good order."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(SystemExit):
    """A signal stopped the training; the exit code is the shell's, 128 + signal.

    Attributes:
        checkpoint: continues the run; None where checkpoints are off.
        iteration: optimizer steps taken.
    """

    def __init__(self, number: int, checkpoint: Path | None, iteration: int) -> None:
        super().__init__(128 + number)
        self.checkpoint = checkpoint
        self.iteration = iteration


class Interrupt(Callback):
    """On a signal, finishes the block at hand, writes a checkpoint and raises `Interrupted`.

    Inside a block some of its steps are taken and some are not, which no checkpoint could express.
    A second signal of the same kind does not wait. Put it behind the callbacks whose records the
    checkpoint should agree with.
    """

    def __init__(self) -> None:
        self._received: int | None = None
        self._previous: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listens, where Python allows it: in the main thread."""
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in SIGNALS}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._received = number
        signal.signal(number, self._previous[number])

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stops all ranks at the same block."""
        received = self._received or 0
        if trainer.world_size > 1:
            # A signal may have reached one rank only.
            mine = torch.tensor(received, device=trainer.strategy.root_device)
            received = int(trainer.strategy.reduce(mine, reduce_op="max"))
        if received:
            raise Interrupted(received, self._save(trainer), trainer.global_step)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops before the test, on a signal that came after the last block."""
        if self._received:
            path = getattr(trainer.checkpoint_callback, "last_path", "")
            raise Interrupted(self._received, Path(path) if path else None, trainer.global_step)

    def _save(self, trainer: Trainer) -> Path | None:
        callback = trainer.checkpoint_callback
        folder = getattr(callback, "dirpath", None)
        if folder is None:
            return None
        path = Path(folder) / f"interrupted-step={trainer.global_step}.ckpt"
        trainer.save_checkpoint(path)
        for earlier in Path(folder).glob("interrupted-step=*.ckpt"):
            if earlier != path and trainer.is_global_zero:
                earlier.unlink()
        return path

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Gives the signals back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
