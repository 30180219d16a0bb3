"""Dense layers: one group of images, and sums over the whole batch.

Arrays are flat; comments give shapes. B images, G groups; a layer's weight is (outputs, inputs),
its values for a group are (outputs, L). d is the gradient at the pre-activations. No layer may be
narrower than a tile of sums, and none may have fewer inputs than L of `lanes.py`.
"""

from __future__ import annotations

import numpy as np

from models.kernels.compiled import compiled
from models.kernels.lanes import LANES
from models.kernels.simd.tanh import tanh
from models.kernels.simd.tile import add_outer, filled, store_tile
from models.kernels.simd.vector import add, fma, load, mul, splat, store
from models.kernels.sizes import TILE


@compiled()
def dense(x, weight, bias, squash, out):
    """Multiplies weight (outputs, inputs) by x (inputs, L), plus bias: out (outputs, L)."""
    inputs, outputs = len(x) // LANES, len(bias)
    for tile_start in range(0, outputs, TILE):
        o = min(tile_start, outputs - TILE)  # the last tile may do some outputs again
        tile = filled(np.float32(0))
        for i in range(inputs):
            tile = add_outer(tile, x, i * LANES, weight, o * inputs + i, inputs)
        store_tile(tile, out, o * LANES)
    for o in range(outputs):
        z = add(load(out, o * LANES), splat(bias[o]))
        store(out, o * LANES, tanh(z) if squash else z)


@compiled()
def dense_input_gradient(d, weight, dx):
    """Gradient d (outputs, L) at the pre-activations -> dx (inputs, L) at the input."""
    inputs, outputs = len(dx) // LANES, len(d) // LANES
    for tile_start in range(0, inputs, TILE):
        i = min(tile_start, inputs - TILE)
        tile = filled(np.float32(0))
        for o in range(outputs):
            tile = add_outer(tile, d, o * LANES, weight, o * inputs + i, 1)
        store_tile(tile, dx, i * LANES)


@compiled()
def through_tanh(dy, y, d):
    """Gradient dy (count, L) at y = tanh(z) -> d at z."""
    one = splat(np.float32(1))
    minus = splat(np.float32(-1))
    for i in range(0, len(y), LANES):
        v = load(y, i)
        store(d, i, mul(load(dy, i), fma(mul(minus, v), v, one)))


@compiled()
def dense_weight_gradient(d, x, batch, outputs, first, last, dw):
    """Sums d (G, outputs, L) times x (B, inputs) over the batch, for columns first to last - 1."""
    inputs = len(dw) // outputs
    for column in range(first, last, LANES):
        i = min(column, inputs - LANES)
        for tile_start in range(0, outputs, TILE):
            o = min(tile_start, outputs - TILE)
            tile = filled(np.float32(0))
            for b in range(batch):
                group = b // LANES
                j = (group * outputs + o) * LANES + b - group * LANES
                tile = add_outer(tile, x, b * inputs + i, d, j, LANES)
            for n in range(TILE):
                store(dw, (o + n) * inputs + i, tile[n])


@compiled()
def dense_bias_gradient(d, db):
    """Sums d (G, outputs, L) over the batch."""
    outputs = len(db)
    groups = len(d) // (outputs * LANES)
    for o in range(outputs):
        total = np.float32(0)
        for g in range(groups):
            for lane in range(LANES):
                total += d[(g * outputs + o) * LANES + lane]
        db[o] = total
