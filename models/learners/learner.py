"""What a learner is, and what it is told."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from models.classifier import Classifier

Counts = np.ndarray[Any, np.dtype[np.int64]]


class Block(Protocol):
    """K consecutive mini-batches, one after the other, by index into N images."""

    images: Tensor
    """(N, H, W) uint8"""
    labels: Tensor
    """(N,) int64"""
    order: Tensor
    """(n,) int64: this rank's part"""
    sizes: Counts
    """(K,) of this rank's images"""
    starts: Counts
    """(K,) how many of a mini-batch's images other ranks have before them"""
    totals: Counts
    """(K,) of all ranks' images"""


class Run(NamedTuple):
    """What a training is like, as far as it decides how to learn."""

    device: torch.device
    precision: str
    """As Lightning names it, or the class of a plugin that is not Lightning's."""
    ranks: int
    batch_size: int | None
    """None where the data does not say."""
    optimizer: torch.optim.Optimizer | None
    """The one that steps; None where there is none, or more than one."""
    is_scheduled: bool
    """Whether the learning rates are those of `Classifier.learning_rates`, not the optimizer's."""
    listeners: tuple[str, ...] = ()
    """Who wants to hear of backward passes and steps, such as "EMA has an on_after_backward"."""
    strategy: str = ""
    """How it is spread, such as "there are 2 ranks"; empty on one device and no more."""
    all_reduce: Callable[[Tensor], Any] | None = None
    """Adds a tensor up over the ranks, in place, where that is all that joins them."""
    timeout: timedelta | None = None
    """How long ranks wait for each other; None is torch's own time."""

    def onlooker(self) -> str | None:
        """Who must be told of each backward pass and step, or take part in it."""
        return self.strategy or (self.listeners[0] if self.listeners else None)


class ObstacleError(RuntimeError):
    """What stands in the way of a learner, and is known by trying alone."""


class Learner(ABC):
    """Takes the iterations of a block: one optimizer step for each mini-batch, in order.

    Making one compiles or records what it calls, so that this counts as set-up.

    Args:
        model: what learns.
        run: the training; `obstacle` of the two is None.
    """

    name: ClassVar[str]
    """For the record."""
    devices: ClassVar[tuple[str, ...]]
    """Types of devices that it knows."""

    @abstractmethod
    def __init__(self, model: Classifier, run: Run) -> None: ...

    @classmethod
    @abstractmethod
    def obstacle(cls, model: Classifier, run: Run) -> str | None:
        """Why it would not compute exactly what is written; None where it does."""

    def is_current(self) -> bool:
        """Whether what it holds of the model and its optimizer is still theirs.

        Where it is not, another one has to be made in its place, before the next block.
        """
        return True

    @abstractmethod
    def __call__(self, block: Block, rates: Tensor) -> Tensor:
        """Learns from K mini-batches, one after the other.

        Args:
            block: this rank's part of them.
            rates: (K,) learning rates, float64, on the CPU.

        Returns:
            The loss of each before its step (K,): this rank's part of the mean over all images,
            times the number of ranks.
        """
