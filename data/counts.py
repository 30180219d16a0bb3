"""What a Trainer counts in batches is mini-batches: which blocks fit, and how many of them it is.

Lightning counts blocks. Where every count is a multiple of the block, so many blocks are the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, Timer
from lightning.pytorch.utilities.model_helpers import is_overridden

HOOKS = ("on_train_batch_start", "on_train_batch_end")
# These look at the clock, or at global_step, which counts iterations in any blocks.
UNCONCERNED = (Timer, ModelCheckpoint)

ON_GPU = 1000
"""Mini-batches of a block there, which waits for Lightning between two blocks longer than it takes
to learn from a few dozen."""


class Blocks(NamedTuple):
    """How many mini-batches a block has, and why not as many as it could."""

    size: int
    why_shorter: str


class Counts:
    """The counts of a Trainer's flags, which it has in blocks while it trains.

    Args:
        trainer: before the training.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._limit = trainer.limit_train_batches
        # Lightning sets none where validation goes by the clock.
        self._interval: int | float = getattr(trainer, "val_check_interval", 1.0)

    def translate(self, iterations: int, longest: int, *, may_be_heard: bool) -> Blocks:
        """Chooses the blocks of an epoch, and gives the Trainer its counts in them.

        Args:
            iterations: mini-batches in an epoch, before any limit.
            longest: no block is longer.
            may_be_heard: whether who wants to hear of each mini-batch does: a block is one then.
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
        """Whether Lightning is about to refuse a count; it then speaks of mini-batches."""
        trainer, interval = self._trainer, self._interval
        is_inside = trainer.check_val_every_n_epoch is not None and trainer.limit_val_batches > 0
        return limited == 0 or (isinstance(interval, int) and is_inside and interval > limited)

    def _counts(self, iterations: int, limited: int) -> Iterator[tuple[str, int]]:
        """What must be a number of blocks, by name."""
        if limited < iterations:
            yield "limit_train_batches", limited
        inside = []
        if isinstance(self._interval, int) or self._interval < 1:
            inside.append(("val_check_interval", max(1, _amount(self._interval, limited))))
        for callback in self._trainer.checkpoint_callbacks:
            if every := getattr(callback, "_every_n_train_steps", 0):
                inside.append(("every_n_train_steps", every))
        if self._trainer.min_steps:  # a training that is to be stopped early ends there
            inside.append(("min_steps", self._trainer.min_steps))
        if inside:  # where a short block at the end of an epoch would count as a whole one
            yield "an epoch", limited
        yield from inside

    def restore(self) -> None:
        """Gives the Trainer its flags back as they were."""
        self._trainer.limit_train_batches = self._limit
        self._trainer.val_check_interval = self._interval


def longest_on_device(trainer: Trainer, usual: int) -> int:
    """How many mini-batches a block may have: more on a GPU, but where it saves more often."""
    if trainer.strategy.root_device.type != "cuda":
        return usual
    saves = trainer.checkpoint_callbacks
    every: list[int] = [getattr(callback, "every", None) or ON_GPU for callback in saves]
    return max(usual, min([ON_GPU, *every]))


def _amount(limit: float, whole: int) -> int:
    """As Lightning reads it: a whole number counts, another one is a share."""
    return limit if isinstance(limit, int) else int(limit * whole)


def listener(trainer: Trainer) -> str | None:
    """Names who wants to hear of each mini-batch, and not, with `reads_blocks`, of each block."""
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
