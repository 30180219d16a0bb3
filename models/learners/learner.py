"""The interface of learners, and the data that they are given."""

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
    """K consecutive mini-batches, as indices into N images."""

    images: Tensor
    """(N, H, W) uint8"""
    labels: Tensor
    """(N,) int64"""
    order: Tensor
    """(n,) int64: indices of this rank's images"""
    sizes: Counts
    """(K,) images of this rank in each mini-batch"""
    starts: Counts
    """(K,) images of each mini-batch that precede this rank's"""
    totals: Counts
    """(K,) images of each mini-batch over all ranks"""


class Run(NamedTuple):
    """The properties of a training that decide between learners."""

    device: torch.device
    precision: str
    """Lightning's name of the precision, or the class of a plugin that is not Lightning's."""
    ranks: int
    batch_size: int | None
    """None if the data module has none."""
    optimizer: torch.optim.Optimizer | None
    """The optimizer; None if there is none, or more than one."""
    is_scheduled: bool
    """Whether the learning rates are those of `Classifier.learning_rates`, not the optimizer's."""
    listeners: tuple[str, ...] = ()
    """Hooks around backward pass and step, such as "EMA has its own on_after_backward"."""
    strategy: str = ""
    """How the training is distributed, such as "there are 2 ranks"; empty on a single device."""
    all_reduce: Callable[[Tensor], Any] | None = None
    """Sums a tensor over the ranks in place, if that is all that joins them (plain DDP)."""
    timeout: timedelta | None = None
    """How long ranks wait for each other; None is torch's default."""

    def onlooker(self) -> str | None:
        """The strategy or hook that takes part in each backward pass and step; None without one."""
        return self.strategy or (self.listeners[0] if self.listeners else None)


class ObstacleError(RuntimeError):
    """A learner cannot be used, for a reason that shows only when it starts."""


class Learner(ABC):
    """Takes the iterations of a block: one optimizer step for each mini-batch, in order.

    Its constructor compiles or records the code that it calls, so that this counts as set-up.

    Args:
        model: the model to train.
        run: the training; `obstacle` of the two is None.
    """

    name: ClassVar[str]
    """Its name in messages and records."""
    devices: ClassVar[tuple[str, ...]]
    """Types of devices that it supports."""

    @abstractmethod
    def __init__(self, model: Classifier, run: Run) -> None: ...

    @classmethod
    @abstractmethod
    def obstacle(cls, model: Classifier, run: Run) -> str | None:
        """Why it would not compute exactly what the model defines; None if it would."""

    def is_current(self) -> bool:
        """Whether what it holds of the model and its optimizer is still theirs.

        Where it is not, another one has to be made in its place, before the next block.
        """
        return True

    @abstractmethod
    def __call__(self, block: Block, rates: Tensor) -> Tensor:
        """Takes one step for each of K mini-batches, in order.

        Args:
            block: this rank's part of them.
            rates: (K,) learning rates, float64, on the CPU.

        Returns:
            The loss of each mini-batch before its step (K,): this rank's part of the mean over all
            images, times the number of ranks.
        """
