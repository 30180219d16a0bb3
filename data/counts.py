"""Translates a Trainer's counts of mini-batches into counts of blocks.

Lightning counts a block as one batch, so the block size has to divide every count.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, Timer
from lightning.pytorch.utilities.model_helpers import is_overridden

HOOKS = ("on_train_batch_start", "on_train_batch_end")
# They read the clock, or global_step, which counts iterations whatever the block size.
UNCONCERNED = (Timer, ModelCheckpoint)

ON_GPU = 1000
"""Mini-batches in a block on a GPU, which waits for Lightning between two blocks longer than a few
dozen iterations take."""


class Blocks(NamedTuple):
    """The number of mini-batches in a block, and why it is not larger."""

    size: int
    why_shorter: str


class Counts:
    """The counts in a Trainer's flags, which are replaced by counts of blocks during training.

    Args:
        trainer: the Trainer, before it trains.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._limit = trainer.limit_train_batches
        # Lightning does not set it if validation is scheduled by time.
        self._interval: int | float = getattr(trainer, "val_check_interval", 1.0)

    def translate(self, iterations: int, longest: int, *, may_be_heard: bool) -> Blocks:
        """Chooses the block size of an epoch and sets the Trainer's counts to match.

        Args:
            iterations: mini-batches in an epoch, before any limit.
            longest: the largest block size.
            may_be_heard: whether blocks are single mini-batches if a hook expects these.
        """
        self.restore()
        if may_be_heard and (heard := listener(self._trainer)):
            return Blocks(1, heard)
        limited = min(_amount(self._limit, iterations), iterations)
        if self._is_refused(limited):
            return Blocks(1, "")
        counts = dict(self._counts(iterations, limited))
        common = math.gcd(*counts.values())
        size = max(n for n in range(1, longest + 1) if common % n == 0) if common else longest
        if limited < iterations:
            self._trainer.limit_train_batches = limited // size
        if count := counts.get("val_check_interval"):
            self._trainer.val_check_interval = count // size
        named = ", ".join(f"{name} is {count:,}" for name, count in counts.items())
        return Blocks(size, named if size < min(longest, limited) else "")

    def _is_refused(self, limited: int) -> bool:
        """Whether Lightning will refuse a count; its message should then be about mini-batches."""
        trainer, interval = self._trainer, self._interval
        is_inside = trainer.check_val_every_n_epoch is not None and trainer.limit_val_batches > 0
        return limited == 0 or (isinstance(interval, int) and is_inside and interval > limited)

    def _counts(self, iterations: int, limited: int) -> Iterator[tuple[str, int]]:
        """Yields the counts that the block size has to divide, by name."""
        if limited < iterations:
            yield "limit_train_batches", limited
        inside = []
        if isinstance(self._interval, int) or self._interval < 1:
            inside.append(("val_check_interval", max(1, _amount(self._interval, limited))))
        for callback in self._trainer.checkpoint_callbacks:
            if every := getattr(callback, "_every_n_train_steps", 0):
                inside.append(("every_n_train_steps", every))
        if self._trainer.min_steps:  # early stopping may end the training there
            inside.append(("min_steps", self._trainer.min_steps))
        if inside:  # a short last block of an epoch would count as a whole one
            yield "an epoch", limited
        yield from inside

    def restore(self) -> None:
        """Restores the Trainer's flags."""
        self._trainer.limit_train_batches = self._limit
        self._trainer.val_check_interval = self._interval


def longest_on_device(trainer: Trainer, usual: int) -> int:
    """Returns the largest block size: more on a GPU, unless checkpoints are more frequent."""
    if trainer.strategy.root_device.type != "cuda":
        return usual
    saves = trainer.checkpoint_callbacks
    every: list[int] = [getattr(callback, "every", None) or ON_GPU for callback in saves]
    return max(usual, min([ON_GPU, *every]))


def _amount(limit: float, whole: int) -> int:
    """Returns the count that Lightning reads from a limit: an int, or a float as a share."""
    return limit if isinstance(limit, int) else int(limit * whole)


def listener(trainer: Trainer) -> str | None:
    """Names a hook that expects mini-batches, not blocks (`reads_blocks`); None if none does."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    heard: list[tuple[Any, type]] = [
        (trainer.lightning_module, LightningModule),
        *((callback, Callback) for callback in callbacks),
    ]
    for who, base in heard:
        if getattr(who, "reads_blocks", False) or isinstance(who, UNCONCERNED):
            continue
        for hook in HOOKS:
            if is_overridden(hook, who, parent=base):
                return f"{type(who).__name__} has its own {hook}"
    return None
