"""Ctrl-C, SIGTERM and a closed terminal end a training after the block at hand."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

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


@contextmanager
def held() -> Iterator[None]:
    """Lets a signal wait until what is inside is done, such as a file that is being written."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # which signals interrupt
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (*STOP, *HANGUP)}
    previous = {
        number: handler
        for number, handler in handlers.items()
        if handler not in (signal.SIG_IGN, None)  # None: not Python's
    }
    for number in previous:
        signal.signal(number, lambda number, _: received.append(number))
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        for first in received[:1]:
            signal.raise_signal(first)


class Interrupt(Callback):
    """On a signal, finishes the block at hand, and the validation that is due behind it.

    Then it raises `Interrupted`, on all ranks at once. Inside a block some of its steps are taken
    and some are not, and a compiled call hears of no signal anyway; a validation that was left out
    would not come again. There, a second signal does what signals did before.
    Put it behind the callbacks whose records a checkpoint should agree with.

    Several ranks hear of each other's signals after each block, with its losses: from the model a
    `training_step` that returns "signals" (n,), above 0 where a rank has `received` that number.
    """

    reads_blocks = True

    def __init__(self) -> None:
        self._received = 0
        self._heard_of = 0  # by all ranks, after the last block
        self._inside = False
        self._handler: Callable[[int, FrameType | None], None] | None = None
        self._previous: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listens, where Python allows it: in the main thread."""
        model: Any = pl_module
        self._received = self._heard_of = model.received = 0
        if threading.current_thread() is not threading.main_thread():
            return
        hangup = [number for number in HANGUP if signal.getsignal(number) != signal.SIG_IGN]
        self._handler = partial(self._note, model)
        for number in (*STOP, *hangup):
            self._previous[number] = signal.signal(number, self._handler)

    def _note(self, model: Any, number: int, frame: FrameType | None) -> None:
        if self._received and not self._inside:
            signal.signal(number, self._previous[number])
            signal.raise_signal(number)
        self._received = model.received = number

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Stops between two blocks; else from here on a signal waits for this one."""
        self._stop_if(self._received if trainer.world_size == 1 else self._heard_of, trainer)
        self._inside = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Up to here; what has reached one rank only stops all of them."""
        self._inside = False
        if trainer.world_size > 1:
            is_told = "signals" in outputs  # not by a training_step of one's own
            self._heard_of = _highest(outputs["signals"]) if is_told else self._ask(trainer)

    def _ask(self, trainer: Trainer) -> int:
        """The number of a signal that some rank has received, on all ranks the same."""
        mine = torch.tensor(self._received, device=trainer.strategy.root_device)
        return int(trainer.strategy.reduce(mine, reduce_op="max"))

    def _stop_if(self, received: int, trainer: Trainer) -> None:
        if received:
            raise Interrupted(received, trainer.global_step)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops before the test, on a signal that came after the last block."""
        self._stop_if(self._ask(trainer), trainer)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Lets signals do what they did before the training."""
        self._give_back()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Likewise."""
        self._give_back()

    def _give_back(self) -> None:
        for number, handler in self._previous.items():
            # Not where Lightning has given back its own, and with it ours, already.
            if signal.getsignal(number) is self._handler:
                signal.signal(number, handler)
        self._previous = {}


def _highest(signals: Tensor) -> int:
    """Of the numbers (n,) above 0, of which 0 is one."""
    return int(signals.nonzero().max())
