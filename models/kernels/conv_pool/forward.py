"""The forward pass of one group of images through one block, in strips of four columns.

Shapes as in `memory.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from models.kernels.compiled import compiled, inlined
from models.kernels.conv_pool.memory import line, part
from models.kernels.lanes import LANES, empty
from models.kernels.simd.tanh import tanh
from models.kernels.simd.tile import convolve, filled, load_taps, store_tile
from models.kernels.simd.vector import add, fma, load, mul, splat, store
from models.kernels.simd.winograd import COUNT, OF_TAPS, ONE, STRIP, gather_sums, spread_pixels
from models.kernels.sizes import KERNEL, TILE


@compiled()
def spread_taps(weight, out):
    """Kernels (P, 5, 5) -> their rows at the points, out (8, P, 5)."""
    for point in range(COUNT):
        values = part(out, point, COUNT)
        for row in range(len(values)):
            total = np.float32(0)
            for kx in range(KERNEL):
                total += OF_TAPS[point, kx] * weight[row * KERNEL + kx]
            values[row] = total


def new_taps(weight: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Memory for the rows of kernels (P, 5, 5) at the points (8, P, 5)."""
    return empty(COUNT * (len(weight) // KERNEL))


@compiled()
def spread_input(framed, shape, pixels):
    """One group's framed input -> (8, Q, C, line, L)."""
    step = len(pixels) // COUNT
    for c in range(shape.maps):
        for r in range(2 * shape.pooled_rows + KERNEL - 1):
            i = (c * shape.rows + r) * shape.columns * LANES
            for q in range(shape.strips):
                j = line(0, q, c, shape.strips, shape.maps, shape.line) + r * LANES
                spread_pixels(framed, i + q * STRIP * LANES, pixels, j, step)


@inlined
def _convolve_strip(layer, bias, scratch, q, m):
    """One strip of output map m, at the points: scratch.products."""
    shape, table = layer.shape, layer.table
    height = 2 * shape.pooled_rows
    for point in range(COUNT):
        # A number that is added at the point 1 is added to all the sums.
        start = bias if point == ONE else np.float32(0)
        for r in range(0, height, TILE):
            tile = filled(start)
            for p in range(table.starts[m], table.starts[m + 1]):
                taps = load_taps(layer.taps, (point * len(table.sources) + p) * KERNEL)
                i = line(point, q, table.sources[p], shape.strips, shape.maps, shape.line)
                tile = convolve(tile, scratch.pixels, i + r * LANES, taps)
            store_tile(tile, scratch.products, (point * shape.line + r) * LANES)


@inlined
def _squash(products, line, a):
    """A strip of sums, at the points -> their tanh, a (rows, 4, L)."""
    for i in range(0, len(a) // STRIP, LANES):
        z0, z1, z2, z3 = gather_sums(products, i, line * LANES)
        store(a, i * STRIP, tanh(z0))
        store(a, i * STRIP + LANES, tanh(z1))
        store(a, i * STRIP + 2 * LANES, tanh(z2))
        store(a, i * STRIP + 3 * LANES, tanh(z3))


@inlined
def _pool(a, pooled, coefficient, offset, slope, start, slope_row, y, y_start, y_row):
    """A strip a (rows, 4, L) -> y and dy/dz as slope, with rows y_row and slope_row apart."""
    one = splat(np.float32(1))
    minus = splat(np.float32(-1))
    factor, constant = splat(coefficient), splat(offset)
    for r in range(len(a) // (2 * STRIP * LANES)):
        for s in range(pooled):
            i = (2 * r * STRIP + 2 * s) * LANES
            j = i + STRIP * LANES
            a0 = load(a, i)
            a1 = load(a, i + LANES)
            b0 = load(a, j)
            b1 = load(a, j + LANES)
            out = tanh(fma(factor, add(add(a0, a1), add(b0, b1)), constant))
            store(y, y_start + r * y_row + s * LANES, out)
            scale = mul(factor, fma(mul(minus, out), out, one))
            j = start + 2 * r * slope_row + 2 * s * LANES
            store(slope, j, mul(scale, fma(mul(minus, a0), a0, one)))
            store(slope, j + LANES, mul(scale, fma(mul(minus, a1), a1, one)))
            store(slope, j + slope_row, mul(scale, fma(mul(minus, b0), b0, one)))
            store(slope, j + slope_row + LANES, mul(scale, fma(mul(minus, b1), b1, one)))


@compiled()
def _keep_fours(a, pooled, fours, start, row):
    """A strip a (rows, 4, L) -> the sums of 2x2, with rows `row` apart."""
    for r in range(len(a) // (2 * STRIP * LANES)):
        for s in range(pooled):
            i = (2 * r * STRIP + 2 * s) * LANES
            j = i + STRIP * LANES
            four = add(add(load(a, i), load(a, i + LANES)), add(load(a, j), load(a, j + LANES)))
            store(fours, start + r * row + s * LANES, four)


@compiled()
def forward_group(layer, per_map, scratch, slope, y, y_rows, y_columns):
    """The input at the points -> slope (M, 2R, 2S, L), y in maps of y_rows x y_columns pixels."""
    shape = layer.shape
    row = 2 * shape.pooled * LANES
    for q in range(shape.strips):
        pooled = min(STRIP // 2, shape.pooled - q * STRIP // 2)
        for m in range(shape.outputs):
            _convolve_strip(layer, per_map.bias[m], scratch, q, m)
            _squash(scratch.products, shape.line, scratch.a)
            _pool(
                scratch.a,
                pooled,
                per_map.coefficient[m],
                per_map.offset[m],
                slope,
                m * 2 * shape.pooled_rows * row + q * STRIP * LANES,
                row,
                y,
                (m * y_rows * y_columns + q * STRIP // 2) * LANES,
                y_columns * LANES,
            )
            if len(scratch.fours):
                start = (m * shape.pooled_rows * shape.pooled + q * STRIP // 2) * LANES
                _keep_fours(scratch.a, pooled, scratch.fours, start, row // 2)
