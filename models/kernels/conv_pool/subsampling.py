"""The gradients at the coefficients and offsets of two blocks in a row, where they are learnt.

Shapes as in `memory.py` and `pair.py`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from models.kernels.compiled import compiled
from models.kernels.conv_pool.frame import inside
from models.kernels.conv_pool.pair import kept_parts
from models.kernels.lanes import LANES
from models.kernels.simd.vector import add, fma, load, mul, splat, store


class Coefficients(NamedTuple):
    """The gradients there, added up by each thread; empty where they are not learnt."""

    coefficient: np.ndarray[Any, Any]
    """(T, M, 8)"""
    offset: np.ndarray[Any, Any]
    """(T, M, 8)"""
    coefficient2: np.ndarray[Any, Any]
    """(T, M2, 8)"""
    offset2: np.ndarray[Any, Any]
    """(T, M2, 8)"""


@compiled()
def new_coefficients(threads, maps, maps2):
    """Memory for the sums of so many coefficients of each block, not yet 0."""
    return Coefficients(
        np.empty((threads, maps * LANES), np.float32),
        np.empty((threads, maps * LANES), np.float32),
        np.empty((threads, maps2 * LANES), np.float32),
        np.empty((threads, maps2 * LANES), np.float32),
    )


@compiled()
def coefficients_of(sums, t):
    """Thread t's sums, set to 0."""
    own = Coefficients(sums.coefficient[t], sums.offset[t], sums.coefficient2[t], sums.offset2[t])
    own.coefficient[:] = 0
    own.offset[:] = 0
    own.coefficient2[:] = 0
    own.offset2[:] = 0
    return own


@compiled()
def coefficients_back(grad, y, pair, state, sums):
    """Gradients of one group, added to the thread's; `backward_both` comes before.

    Grad (M2, R2, S2, 8) is at the second block's y; scratch holds the gradient at the first one's.
    """
    first, second = pair.first.shape, pair.second.shape
    _, middle, _ = kept_parts(state, first, second)
    rows, columns = second.pooled_rows, second.pooled
    own = sums.coefficient2, sums.offset2
    _add_group(grad, y, rows, columns, second, pair.scratch2.fours, *own)
    grad, y = inside(pair.scratch2.framed, second), inside(middle, second)
    rows, columns = second.rows, second.columns
    own = sums.coefficient, sums.offset
    _add_group(grad, y, rows, columns, first, pair.scratch.fours, *own)


@compiled()
def _add_group(grad, y, rows, columns, shape, fours, coefficient, offset):
    """Of one block: grad and y are maps of rows x columns pixels, the sums (M, 8) are added to."""
    one = splat(np.float32(1))
    minus = splat(np.float32(-1))
    for m in range(shape.outputs):
        at_coefficient, at_offset = load(coefficient, m * LANES), load(offset, m * LANES)
        for r in range(shape.pooled_rows):
            for s in range(shape.pooled):
                i = ((m * rows + r) * columns + s) * LANES
                j = ((m * shape.pooled_rows + r) * shape.pooled + s) * LANES
                value = load(y, i)
                d = mul(load(grad, i), fma(mul(minus, value), value, one))
                at_coefficient = fma(d, load(fours, j), at_coefficient)
                at_offset = add(at_offset, d)
        store(coefficient, m * LANES, at_coefficient)
        store(offset, m * LANES, at_offset)
