"""The backward pass of one group of images through one block, and the sums over groups.

Shapes as in `memory.py`.
"""

from __future__ import annotations

import numpy as np

from models.kernels.compiled import compiled
from models.kernels.conv_pool.memory import line
from models.kernels.lanes import LANES
from models.kernels.simd.tile import (
    add_taps,
    convolve_back,
    convolve_back_after_zeros,
    convolve_back_before_zeros,
    correlate,
    filled,
    load_taps,
)
from models.kernels.simd.vector import add, load, mul, splat, store, total_of, totals_of
from models.kernels.simd.winograd import (
    COUNT,
    OF_TAPS,
    STRIP,
    gather_pixels,
    no_pixels,
    spread_sums,
)
from models.kernels.sizes import KERNEL


@compiled()
def _spread_gradient(grad, grad_rows, grad_columns, shape, slope, strip, strips, d, db):
    """Gradient at y and slope -> d, at the sums of some strips, at the points; adds d to db."""
    none = splat(np.float32(0))
    for m in range(shape.outputs):
        total = load(db, m * LANES)
        for q in range(strips):
            column = 2 * (strip + q)
            for r in range(2 * shape.pooled_rows):
                i = ((m * grad_rows + r // 2) * grad_columns + column) * LANES
                j = ((m * 2 * shape.pooled_rows + r) * shape.pooled + column) * 2 * LANES
                g = load(grad, i)
                d0, d1 = mul(g, load(slope, j)), mul(g, load(slope, j + LANES))
                d2, d3 = none, none
                if column + 1 < shape.pooled:
                    g = load(grad, i + LANES)
                    d2, d3 = mul(g, load(slope, j + 2 * LANES)), mul(g, load(slope, j + 3 * LANES))
                place = line(0, q, m, shape.at_once, shape.outputs, shape.gradient_line)
                spread_sums(d0, d1, d2, d3, d, place + r * LANES, len(d) // COUNT)
                total = add(total, add(add(d0, d1), add(d2, d3)))
        store(db, m * LANES, total)


@compiled()
def _weight_gradient(layer, scratch, point, strip, strips, taps):
    """Adds the gradient at the weights, of some strips at one point, to taps (8, P, 5, L)."""
    shape, table = layer.shape, layer.table
    connections = len(table.sources)
    for p in range(connections):
        tile = filled(np.float32(0))
        for q in range(strips):
            c, m = table.sources[p], table.outputs[p]
            i = line(point, strip + q, c, shape.strips, shape.maps, shape.line)
            j = line(point, q, m, shape.at_once, shape.outputs, shape.gradient_line)
            for r in range(0, 2 * shape.pooled_rows * LANES, 2 * LANES):
                tile = correlate(tile, scratch.pixels, i + r, scratch.d, j + r)
        add_taps(tile, taps, (point * connections + p) * KERNEL * LANES)


@compiled()
def _input_gradient(layer, scratch, point, strip, strips):
    """Adds the gradient at the input, of some strips at one point, to scratch.pixel_gradients."""
    shape, table = layer.shape, layer.table
    connections = len(table.sources)
    out = scratch.pixel_gradients
    height = 2 * shape.pooled_rows * LANES
    for p in range(connections):
        taps = load_taps(layer.taps, (point * connections + p) * KERNEL)
        for q in range(strips):
            c, m = table.sources[p], table.outputs[p]
            i = line(point, strip + q, c, shape.strips, shape.maps, shape.gradient_line)
            j = line(point, q, m, shape.at_once, shape.outputs, shape.gradient_line)
            for r in range(0, height + (KERNEL - 1) * LANES, KERNEL * LANES):
                if r == 0:
                    convolve_back_after_zeros(scratch.d, j, taps, out, i)
                elif r >= height:
                    convolve_back_before_zeros(scratch.d, j + r, taps, out, i + r)
                else:
                    convolve_back(scratch.d, j + r, taps, out, i + r)


@compiled()
def gather_input_gradient(pixel_gradients, shape, dx):
    """Gradient at the input, at the points -> at the framed input, dx (C, rows, columns, L)."""
    step = len(pixel_gradients) // COUNT
    for c in range(shape.maps):
        for r in range(2 * shape.pooled_rows + KERNEL - 1):
            j = (c * shape.rows + r) * shape.columns * LANES
            shared = no_pixels()
            for q in range(shape.strips):
                i = line(0, q, c, shape.strips, shape.maps, shape.gradient_line) + r * LANES
                shared = gather_pixels(shared, pixel_gradients, i, step, dx, j)
                j += STRIP * LANES
            store(dx, j, shared[0])
            store(dx, j + LANES, shared[1])
            store(dx, j + 2 * LANES, shared[2])
            store(dx, j + 3 * LANES, shared[3])


@compiled()
def backward_group(grad, grad_rows, grad_columns, layer, scratch, slope, want_input, taps, db):
    """Adds one group's gradients to taps (8, P, 5, L) and db (M, L).

    `grad` is the gradient at y, in maps of grad_rows x grad_columns pixels. The gradient at the
    input is left at the points.
    """
    shape = layer.shape
    if want_input:
        scratch.pixel_gradients[:] = 0
    for strip in range(0, shape.strips, shape.at_once):
        strips = min(shape.at_once, shape.strips - strip)
        _spread_gradient(grad, grad_rows, grad_columns, shape, slope, strip, strips, scratch.d, db)
        for point in range(COUNT):
            _weight_gradient(layer, scratch, point, strip, strips, taps)
            if want_input:
                _input_gradient(layer, scratch, point, strip, strips)


@compiled()
def add_lanes(vectors, out):
    """Vectors (N, L) -> the sum of each, out (N,)."""
    whole = len(out) // LANES * LANES
    for i in range(0, whole, LANES):
        totals_of(vectors, i * LANES, out, i)
    for i in range(whole, len(out)):
        out[i] = total_of(load(vectors, i * LANES))


@compiled()
def add_up(parts, start, out):
    """Parts (chunks, ...) from `start` on -> their sums out (N,), always in the same order."""
    for i in range(len(out)):
        total = parts[0, start + i]
        for chunk in range(1, len(parts)):
            total += parts[chunk, start + i]
        out[i] = total


@compiled()
def _gather_taps(spread, weight):
    """The transposed transform, for gradients: (8, P, 5) at the points -> (P, 5, 5)."""
    rows = len(weight) // KERNEL
    for row in range(rows):
        for kx in range(KERNEL):
            total = np.float32(0)
            for point in range(COUNT):
                total += OF_TAPS[point, kx] * spread[point * rows + row]
            weight[row * KERNEL + kx] = total


@compiled()
def sum_of_taps(parts, spread, weight):
    """Gradients at the points (chunks, 8, P, 5) -> spread (8, P, 5) -> at the weights (P, 5, 5)."""
    add_up(parts, 0, spread)
    _gather_taps(spread, weight)
