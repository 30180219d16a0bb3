"""Problem 4: the windows of max pooling, and the chain of equations, as printed and as they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from project.reproduce.record import Erratum

INPUTS, OUTPUTS = 28, 14  # rows and columns, m = n and k = l


def printed(size: int, outputs: int) -> list[slice]:
    """Returns rows i : i + m/k - 1 of the windows i = 1 .. k, as the document prints them."""
    return [slice(i - 1, i + size // outputs - 1) for i in range(1, outputs + 1)]


def stepping(size: int, outputs: int) -> list[slice]:
    """Returns rows (i - 1) m/k + 1 : i m/k of the windows i = 1 .. k, as pooling has them."""
    step = size // outputs
    return [slice((i - 1) * step, i * step) for i in range(1, outputs + 1)]


def maxima(x: Tensor, windows: Sequence[slice]) -> Tensor:
    """Returns the largest value in each window of x (m, m), (k, k)."""
    return torch.stack([torch.stack([x[i, j].max() for j in windows]) for i in windows])


def readers(size: int, windows: Sequence[slice]) -> Tensor:
    """Returns the number of windows that hold each pixel, (m, m)."""
    counts = torch.zeros(size, size, dtype=torch.long)
    for i in windows:
        for j in windows:
            counts[i, j] += 1
    return counts


def errata(s: Callable[[Tensor], Tensor], seed: int) -> tuple[Erratum, Erratum]:
    """Returns both errata, shown on random values.

    Args:
        s: an increasing activation.
        seed: seed of the values.
    """
    x = torch.randn(INPUTS, INPUTS, generator=torch.Generator().manual_seed(seed))
    return _windows(x), _chain(s, x[:2, :2])


def _windows(x: Tensor) -> Erratum:
    pooled = F.max_pool2d(x[None], INPUTS // OUTPUTS)[0]
    sliding, right = printed(INPUTS, OUTPUTS), stepping(INPUTS, OUTPUTS)
    missed = int((readers(INPUTS, sliding) == 0).sum())
    wrong = [int((maxima(x, windows) != pooled).sum()) for windows in (sliding, right)]
    once = bool((readers(INPUTS, right) == 1).all())
    fitting = INPUTS - INPUTS // OUTPUTS + 1
    return Erratum(
        "the window of output (i, j): rows i : i + m/k - 1, columns j : j + n/l - 1",
        "rows (i - 1) m/k + 1 : i m/k, columns (j - 1) n/l + 1 : j n/l",
        f"{INPUTS} x {INPUTS} to {OUTPUTS} x {OUTPUTS}: of windows that slide by one pixel "
        f"{fitting} x {fitting} fit; the first {OUTPUTS} x {OUTPUTS} miss {missed} of {x.numel()} "
        f"pixels, and {wrong[0]} of {pooled.numel()} maxima differ from torch's max_pool2d. Of "
        f"those that step {wrong[1]} differ, and each pixel is in "
        f"{'one' if once else 'more or less than one'}",
    )


def _chain(s: Callable[[Tensor], Tensor], window: Tensor) -> Erratum:
    left, as_printed = s(window.max()), s(window)
    low, high = as_printed.min().item(), as_printed.max().item()
    return Erratum(
        "first line of the closing chain: s(rho(window)) = s(window)",
        "s(rho(window)) = s(max of the window) = max of s(window)",
        f"a 2 x 2 window: s(rho) is {left.numel()} number, {left.item():.3f}; s(window) are "
        f"{as_printed.numel()}, from {low:.3f} to {high:.3f}; their max is {high:.3f}",
    )
