"""Ends a training after the current block on Ctrl-C, SIGTERM or a closed terminal."""

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
"""The signal of a closed terminal, on systems that have it; nohup ignores it."""


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
    """Delays signals until the `with` block ends, such as while a file is being written."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # which alone gets signals
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (*STOP, *HANGUP)}
    previous = {
        number: handler
        for number, handler in handlers.items()
        if handler not in (signal.SIG_IGN, None)  # None: not set from Python
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
    """On a signal, finishes the current block and the validation that is due after it.

    Then it raises `Interrupted`, on all ranks at once. A block is not interrupted, since only some
    of its steps would be taken, and a compiled call notices no signal; neither is a validation,
    since it would not be repeated. During validation, a second signal has its previous effect.
    Put this callback after those whose records a checkpoint should agree with.

    Ranks exchange signals after each block, with its losses: `training_step` returns "signals"
    (n,), whose entry i is above 0 if signal i is the model's `received` on some rank.
    """

    reads_blocks = True

    def __init__(self) -> None:
        self._received = 0
        self._heard_of = 0  # known to all ranks since the last block
        self._inside = False
        self._handler: Callable[[int, FrameType | None], None] | None = None
        self._previous: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Installs signal handlers, which Python allows in the main thread only."""
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
        """Stops if a signal has arrived; from here on, signals wait for the end of the block."""
        self._stop_if(self._received if trainer.world_size == 1 else self._heard_of, trainer)
        self._inside = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Shares signals among the ranks, so that one received by a single rank stops all."""
        self._inside = False
        if trainer.world_size > 1:
            is_told = "signals" in outputs  # a user's step may lack them
            self._heard_of = _highest(outputs["signals"]) if is_told else self._ask(trainer)

    def _ask(self, trainer: Trainer) -> int:
        """Returns the highest signal that a rank has received, on all ranks the same; 0 if none."""
        mine = torch.tensor(self._received, device=trainer.strategy.root_device)
        return int(trainer.strategy.reduce(mine, reduce_op="max"))

    def _stop_if(self, received: int, trainer: Trainer) -> None:
        if received:
            raise Interrupted(received, trainer.global_step)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops before the test if a signal arrived after the last block."""
        self._stop_if(self._ask(trainer), trainer)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Restores the previous signal handlers."""
        self._give_back()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Restores the previous signal handlers."""
        self._give_back()

    def _give_back(self) -> None:
        for number, handler in self._previous.items():
            # Skipped if Lightning has restored its own handlers, and with them ours, already.
            if signal.getsignal(number) is self._handler:
                signal.signal(number, handler)
        self._previous = {}


def _highest(signals: Tensor) -> int:
    """Returns the highest index of an entry (n,) above 0; index 0 stands for no signal."""
    return int(signals.nonzero().max())
