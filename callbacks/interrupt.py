"""Ctrl-C, SIGTERM and a closed terminal end a training after the block at hand."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

STOP = (signal.SIGINT, signal.SIGTERM)
HANGUP = tuple(number for number in signal.Signals if number.name == "SIGHUP")
"""Of a closed terminal, where the system has that; nohup ignores it."""


class Interrupted(SystemExit):
    """A signal stopped the training; the exit code is the shell's, 128 + signal.

    Attributes:
        iteration: optimizer steps taken.
    """

    def __init__(self, number: int, iteration: int) -> None:
        super().__init__(128 + number)
        self.iteration = iteration


class Interrupt(Callback):
    """On a signal, finishes the block at hand and raises `Interrupted`, on all ranks at once.

    Inside a block some of its steps are taken and some are not, and a compiled call hears of no
    signal anyway. Elsewhere, such as in a validation, a second signal does what it did before.
    Put it behind the callbacks whose records a checkpoint should agree with.
    """

    def __init__(self) -> None:
        self._received: int | None = None
        self._inside = False
        self._previous: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listens, where Python allows it: in the main thread."""
        if threading.current_thread() is not threading.main_thread():
            return
        hangup = [number for number in HANGUP if signal.getsignal(number) != signal.SIG_IGN]
        for number in (*STOP, *hangup):
            self._previous[number] = signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._received and not self._inside:
            signal.signal(number, self._previous[number])
            signal.raise_signal(number)
        self._received = number

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """From here on a signal waits for the block."""
        self._inside = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stops all ranks at the same block."""
        self._inside = False
        received = self._received or 0
        if trainer.world_size > 1:
            # A signal may have reached one rank only.
            mine = torch.tensor(received, device=trainer.strategy.root_device)
            received = int(trainer.strategy.reduce(mine, reduce_op="max"))
        if received:
            raise Interrupted(received, trainer.global_step)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops before the test, on a signal that came after the last block."""
        if self._received:
            raise Interrupted(self._received, trainer.global_step)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """A block that broke off is no longer waited for."""
        self._inside = False
        # Else the process is about to end: a second signal must not stop the saving.
        if not isinstance(exception, Interrupted):
            self._give_back()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Lets signals do what they did before the training."""
        self._give_back()

    def _give_back(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
