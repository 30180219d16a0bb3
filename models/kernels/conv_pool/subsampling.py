"""Gradients at the pooling coefficients and offsets of two consecutive blocks, if they are learnt.

Shapes as in `memory.py` and `pair.py`.
"""

from __future__ import annotations

import numpy as np

from models.kernels.compiled import compiled
from models.kernels.conv_pool.frame import inside
from models.kernels.conv_pool.pair import kept_parts
from models.kernels.lanes import LANES
from models.kernels.simd.vector import add, fma, load, mul, splat, store


@compiled()
def coefficients_back(grad, y, pair, state, sums):
    """Adds one group's gradients to the thread's sums; called after `backward_both`.

    `grad` (M2, R2, S2, L) is the gradient at the second block's y; scratch holds that at the
    first's.
    """
    first, second = pair.first.shape, pair.second.shape
    _, middle, _ = kept_parts(state, first, second)
    rows, columns = second.pooled_rows, second.pooled
    _add_group(grad, y, rows, columns, second, pair.scratch2.fours, sums.bias2)
    grad, y = inside(pair.scratch2.framed, second), inside(middle, second)
    _add_group(grad, y, second.rows, second.columns, first, pair.scratch.fours, sums.bias)


@compiled()
def _add_group(grad, y, rows, columns, shape, fours, sums):
    """Adds one block's gradients to sums (3, M, L); grad and y have maps of rows x columns."""
    one = splat(np.float32(1))
    minus = splat(np.float32(-1))
    for m in range(shape.outputs):
        coefficient, offset = (shape.outputs + m) * LANES, (2 * shape.outputs + m) * LANES
        at_coefficient, at_offset = load(sums, coefficient), load(sums, offset)
        for r in range(shape.pooled_rows):
            for s in range(shape.pooled):
                i = ((m * rows + r) * columns + s) * LANES
                j = ((m * shape.pooled_rows + r) * shape.pooled + s) * LANES
                value = load(y, i)
                d = mul(load(grad, i), fma(mul(minus, value), value, one))
                at_coefficient = fma(d, load(fours, j), at_coefficient)
                at_offset = add(at_offset, d)
        store(sums, coefficient, at_coefficient)
        store(sums, offset, at_offset)
