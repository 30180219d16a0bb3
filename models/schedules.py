"""Learning rate schedules, as factors of the highest rate: pure functions of the iteration."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

PASSES = (1.0,) * 2 + (0.4,) * 3 + (0.2,) * 3 + (0.1,) * 4 + (0.02,) * 8
"""Factors for the 20 passes through the training set of LeCun et al. 1998 (III.B)."""

RISE = 0.4
"""Fraction of a training over which `one_cycle` rises."""


class Length(NamedTuple):
    """The length of a training."""

    epoch: int
    """Iterations in one pass through the training set."""
    total: int | None
    """Iterations in all; None if the training has no end."""


Schedule = Callable[[Tensor, Length], Tensor]
"""Maps iterations (K,) float64, counted from 0, to factors of the learning rate (K,)."""


def says_other(schedule: Schedule, iteration: int, before: Length, now: Length) -> str | None:
    """Describes how another end of the training changes the rate at an iteration, if it does.

    >>> says_other(cosine, 50, Length(5, 100), Length(5, 200))
    '0.85 of the highest instead of 0.5'
    >>> says_other(constant, 50, Length(5, 100), Length(5, 200))
    """
    iterations = torch.tensor([iteration], dtype=torch.float64)
    old, new = (float(schedule(iterations, length)) for length in (before, now))
    return None if math.isclose(old, new) else f"{new:.2g} of the highest instead of {old:.2g}"


def constant(iterations: Tensor, length: Length) -> Tensor:
    """The highest rate throughout.

    >>> constant(torch.tensor([0.0, 9.0]), Length(10, None)).tolist()
    [1.0, 1.0]
    """
    return torch.ones_like(iterations)


def falling(iterations: Tensor, length: Length, last: int) -> Tensor:
    """Falls linearly to 0 at the iteration `last`, and stays 0.

    >>> falling(torch.tensor([0.0, 5.0, 10.0, 99.0]), Length(10, None), last=10).tolist()
    [1.0, 0.5, 0.0, 0.0]
    """
    return (1 - iterations / last).clamp(min=0)


def cosine(iterations: Tensor, length: Length) -> Tensor:
    """Rises linearly over the first epoch, and decays along a cosine to 0 at the end.

    Loshchilov and Hutter 2017, 3, with a warm-up.

    Raises:
        ValueError: the training has no end.

    >>> parts = cosine(torch.tensor([0.0, 4.0, 50.0, 100.0]), Length(5, 100))
    >>> [round(part, 3) for part in parts.tolist()]
    [0.2, 0.996, 0.5, 0.0]
    """
    end = _end(length)
    warm_up = ((iterations + 1) / length.epoch).clamp(max=1)
    return warm_up * (1 + (math.pi * iterations / end).cos()) / 2


def one_cycle(iterations: Tensor, length: Length) -> Tensor:
    """Rises linearly over the first part, `RISE`, and falls linearly to 0 at the end.

    Smith and Topin 2018, without their last phase.

    Raises:
        ValueError: the training has no end.

    >>> parts = one_cycle(torch.tensor([0.0, 39.0, 70.0, 100.0]), Length(50, 100))
    >>> [round(part, 3) for part in parts.tolist()]
    [0.025, 1.0, 0.5, 0.0]
    """
    end = _end(length)
    rising, falling = (iterations + 1) / (RISE * end), (end - iterations) / (end - RISE * end)
    return torch.minimum(rising, falling).clamp(0, 1)


def passes(iterations: Tensor, length: Length) -> Tensor:
    """The factor of each pass (`PASSES`); that of the last one stays.

    >>> passes(torch.tensor([0.0, 19.0, 20.0, 999.0]), Length(10, None)).tolist()
    [1.0, 1.0, 0.4, 0.02]
    """
    parts = torch.tensor(PASSES, dtype=torch.float64)
    return parts[(iterations // length.epoch).long().clamp(max=len(PASSES) - 1)]


def _end(length: Length) -> int:
    """The number of iterations."""
    if length.total is None:
        raise ValueError(
            "the schedule needs a last iteration: set --trainer.max_epochs or --trainer.max_steps"
        )
    return length.total
