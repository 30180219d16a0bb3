"""Sizes in the compiled code; those of a fused block are the same on every device."""

from __future__ import annotations

KERNEL = 5
"""Height and width of a kernel."""

TILE = 10
"""Number of sums that stay in registers on a CPU, enough to keep the multipliers busy."""


def pooled_size(height: int, width: int, padding: int) -> tuple[int, int]:
    """Rows and columns of pixels after the convolution and the pooling.

    Raises:
        RuntimeError: the input or the output would be empty; torch raises the same.
    """
    rows, columns = ((size + 2 * padding - KERNEL + 1) // 2 for size in (height, width))
    if min(rows, columns, height, width) < 1:
        raise RuntimeError(f"{height} x {width} pixels, padding {padding}: too small to pool")
    return rows, columns
