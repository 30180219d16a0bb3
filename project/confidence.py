"""How far a mean over some runs may be from the one over all runs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import torch


def confidence_interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % confidence interval of the mean of normally distributed values, by Student's t.

    Args:
        values: two or more.
    """
    half = student_quantile(len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    mean = statistics.fmean(values)
    return mean - half, mean + half


def student_quantile(degrees: int) -> float:
    """The value that Student's t with so many degrees of freedom stays below in 97.5 % of cases.

    The density is integrated from 0 in steps of 0.0001; one degree of freedom has 12.7.
    """
    t = torch.linspace(0, 20, 200_001, dtype=torch.float64)
    density = (1 + t**2 / degrees) ** (-(degrees + 1) / 2)
    # By logarithms: the gamma function itself is too large for a float from 172 on.
    factor = math.exp(math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2))
    normal = factor / math.sqrt(degrees * math.pi)
    below = 0.5 + normal * torch.cumulative_trapezoid(density, t)
    return float(t[1:][below < 0.975][-1])
