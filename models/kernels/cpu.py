"""The fused block on the CPU: compiled by Numba, eight images to a vector, groups over threads.

All images are in the layout of `lanes.py`. `compiled.py` keeps the machine code, so that only the
first run of a machine waits for it.

Shapes: B images, G groups, C input maps, M output maps, P connections, H W input pixels, R S
pooled pixels (so 2R 2S convolved ones), Q strips of four columns, T threads. Arrays are flat inside
the kernels; comments give shapes. "At the points" means transformed as Winograd's filtering wants
it, one value for each of eight points.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numba import prange
from torch import Tensor

from models.kernels import doors
from models.kernels.compiled import compiled
from models.kernels.lanes import LANES
from models.kernels.simd.tanh import tanh
from models.kernels.simd.tile import (
    add_outer,
    add_taps,
    convolve,
    convolve_back,
    convolve_back_after_zeros,
    convolve_back_before_zeros,
    correlate,
    filled,
    load_taps,
    store_tile,
)
from models.kernels.simd.vector import add, fma, load, mul, splat, store, total_of, transpose
from models.kernels.simd.winograd import (
    COUNT,
    OF_TAPS,
    ONE,
    STRIP,
    gather_pixels,
    gather_sums,
    no_pixels,
    spread_pixels,
    spread_sums,
)
from models.kernels.sizes import TILE, K, pooled_size
from models.kernels.threads import use_threads

CPU = torch.device("cpu")

# For what runs once a strip of a map: handing over the arguments takes 0.1 us.
inlined = compiled(forceinline=True)

# --- sizes and tables ---------------------------------------------------------------------------


class Shape(NamedTuple):
    """Sizes of one block, in maps and pixels."""

    maps: int
    height: int
    width: int
    padding: int
    outputs: int
    pooled_rows: int
    pooled: int
    strips: int
    """Q, of four columns of sums each."""
    at_once: int
    """N, the strips that go back together."""
    rows: int
    """Of the frame of zeros that the input is put into."""
    columns: int
    line: int
    """Rows of a column of pixels, with zeros up to whole tiles of sums."""
    gradient_line: int
    """Rows of a column of gradients, with zeros up to whole fives."""
    slopes: int
    """Floats of one group's slope."""
    framed: int
    """Floats of one group's framed input."""
    features: int
    """Pooled pixels of all output maps."""


class Table(NamedTuple):
    """The connections, output map by output map."""

    starts: np.ndarray[Any, Any]
    """(M + 1,) where each output map's connections begin"""
    sources: np.ndarray[Any, Any]
    """(P,) input map of each connection"""
    outputs: np.ndarray[Any, Any]
    """(P,) output map of each connection"""


@lru_cache(maxsize=64)
def _shape(maps: int, height: int, width: int, padding: int, outputs: int) -> Shape:
    pooled_rows, pooled = pooled_size(height, width, padding)
    strips = -(-2 * pooled // STRIP)
    rows, columns = height + 2 * padding, max(width + 2 * padding, strips * STRIP + K - 1)
    return Shape(
        maps=maps,
        height=height,
        width=width,
        padding=padding,
        outputs=outputs,
        pooled_rows=pooled_rows,
        pooled=pooled,
        strips=strips,
        # About thirty rows, so that it pays to keep the sums over them in registers; not more, so
        # that the gradients stay in the cache.
        at_once=min(strips, max(1, 3 * TILE // (2 * pooled_rows))),
        rows=rows,
        columns=columns,
        line=-(-2 * pooled_rows // TILE) * TILE + K - 1,
        gradient_line=-(-(2 * pooled_rows + K - 1) // K) * K,
        slopes=outputs * 4 * pooled_rows * pooled * LANES,
        framed=maps * rows * columns * LANES,
        features=outputs * pooled_rows * pooled,
    )


def _table(connections: Tensor, outputs: int, inputs: int) -> Table:
    # By its numbers: they may be others than those of the last call.
    return _table_of(connections.numpy().tobytes(), outputs, inputs)


@lru_cache(maxsize=64)
def _table_of(pairs: bytes, outputs: int, inputs: int) -> Table:
    connections = np.frombuffer(pairs, np.int64).reshape(-1, 2).copy()
    doors.check_connections(torch.from_numpy(connections), outputs, inputs)
    to, sources = connections.T.copy()
    return Table(np.searchsorted(to, np.arange(outputs + 1)), sources, to)


# --- forward, one group -------------------------------------------------------------------------


@compiled()
def _frame_lanes(x, shape, out):
    """One group (C, H, W, 8) into the middle of its frame of zeros (C, rows, columns, 8)."""
    for c in range(shape.maps):
        for r in range(shape.height):
            i = (c * shape.height + r) * shape.width * LANES
            j = (c * shape.rows + r + shape.padding) * shape.columns + shape.padding
            out[j * LANES : (j + shape.width) * LANES] = x[i : i + shape.width * LANES]


@compiled()
def _unframe_lanes(framed, shape, x):
    """The reverse."""
    for c in range(shape.maps):
        for r in range(shape.height):
            i = (c * shape.height + r) * shape.width * LANES
            j = (c * shape.rows + r + shape.padding) * shape.columns + shape.padding
            x[i : i + shape.width * LANES] = framed[j * LANES : (j + shape.width) * LANES]


@compiled()
def _frame_images(x, first, batch, shape, out):
    """Images `first` to `first` + 7 of x (B, C, H, W) into the middle of a frame of zeros."""
    pixels = shape.maps * shape.height * shape.width
    for c in range(shape.maps):
        for r in range(shape.height):
            i = first * pixels + (c * shape.height + r) * shape.width
            j = (c * shape.rows + r + shape.padding) * shape.columns + shape.padding
            _into_lanes(x, i, pixels, batch - first, shape.width, out, j * LANES)


@compiled()
def _into_lanes(x, start, step, images, width, out, out_start):
    """Eight rows of x, step apart, side by side: out (width, 8), 0 from lane `images` on."""
    whole = width // LANES * LANES if images >= LANES else 0
    for s in range(0, whole, LANES):
        transpose(x, start + s, step, out, out_start + s * LANES, LANES)
    for s in range(whole, width):
        for lane in range(LANES):
            value = x[start + s + lane * step] if lane < images else np.float32(0)
            out[out_start + s * LANES + lane] = value


@compiled()
def _out_of_lanes(x, images, width, out, start, step):
    """The reverse: x (width, 8) -> rows of out, step apart."""
    whole = width // LANES * LANES if images >= LANES else 0
    for s in range(0, whole, LANES):
        transpose(x, s * LANES, LANES, out, start + s, step)
    for s in range(whole, width):
        for lane in range(min(images, LANES)):
            out[start + s + lane * step] = x[s * LANES + lane]


class Layer(NamedTuple):
    """One block, as the loops over a group need it."""

    shape: Shape
    table: Table
    taps: np.ndarray[Any, Any]
    """(8, P, 5) the weights at the points, for each row of a kernel"""


class Scratch(NamedTuple):
    """A thread's memory for one block and one group."""

    framed: np.ndarray[Any, Any]
    """(C, rows, columns, 8) the input in its frame of zeros; of the second of two blocks, the
    gradient there"""
    pixels: np.ndarray[Any, Any]
    """(8, Q, C, line, 8) the input at the points"""
    products: np.ndarray[Any, Any]
    """(8, line, 8) one strip of one map, at the points"""
    a: np.ndarray[Any, Any]
    """(2R, 4, 8) tanh of the sums of one strip of one map"""
    d: np.ndarray[Any, Any]
    """(8, N, M, gradient_line, 8) the gradient at the sums of some strips, at the points"""
    pixel_gradients: np.ndarray[Any, Any]
    """(8, Q, C, gradient_line, 8) the gradient at the input, at the points"""


@compiled()
def _scratches(shape, threads, backward):
    """One for each thread: every array with one more dimension in front."""
    columns = COUNT * shape.strips * shape.maps * LANES
    d_columns = COUNT * shape.at_once * shape.outputs * LANES if backward else 0
    # Zeros: what lies outside of the image, or fills up a line, is never written.
    return Scratch(
        np.zeros((threads, shape.framed), np.float32),
        np.zeros((threads, columns * shape.line), np.float32),
        np.empty((threads, COUNT * shape.line * LANES), np.float32),
        np.empty((threads, 2 * shape.pooled_rows * STRIP * LANES), np.float32),
        np.zeros((threads, d_columns * shape.gradient_line), np.float32),
        np.empty((threads, columns * shape.gradient_line if backward else 0), np.float32),
    )


@compiled()
def _scratch_of(scratches, t):
    """Thread t's."""
    return Scratch(
        scratches.framed[t],
        scratches.pixels[t],
        scratches.products[t],
        scratches.a[t],
        scratches.d[t],
        scratches.pixel_gradients[t],
    )


@compiled()
def _part(parts, n, count):
    """Part n of `count` equal ones."""
    size = len(parts) // count
    return parts[n * size : (n + 1) * size]


@compiled()
def _spread_taps(weight):
    """Kernels (P, 5, 5) -> their rows at the points (8, P, 5)."""
    rows = len(weight) // K
    out = np.zeros(COUNT * rows, np.float32)
    for kx in range(K):
        column = weight[kx::K].copy()
        for point in range(COUNT):
            factor, values = OF_TAPS[point, kx], _part(out, point, COUNT)
            for row in range(rows):
                values[row] += factor * column[row]
    return out


@compiled()
def _gather_taps(spread, weight):
    """The reverse way for gradients: (8, P, 5) at the points -> (P, 5, 5)."""
    rows = len(weight) // K
    for row in range(rows):
        for kx in range(K):
            total = np.float32(0)
            for point in range(COUNT):
                total += OF_TAPS[point, kx] * spread[point * rows + row]
            weight[row * K + kx] = total


@inlined
def _line(point, q, m, strips, maps, length):
    """Where a line of (8, strips, maps, length, 8) begins."""
    return ((point * strips + q) * maps + m) * length * LANES


@compiled()
def _spread_input(framed, shape, pixels):
    """One group's framed input -> (8, Q, C, line, 8)."""
    step = len(pixels) // COUNT
    for c in range(shape.maps):
        for r in range(2 * shape.pooled_rows + K - 1):
            i = (c * shape.rows + r) * shape.columns * LANES
            for q in range(shape.strips):
                j = _line(0, q, c, shape.strips, shape.maps, shape.line) + r * LANES
                spread_pixels(framed, i + q * STRIP * LANES, pixels, j, step)


@inlined
def _convolve_strip(layer, bias, scratch, q, m):
    """One strip of output map m, at the points: scratch.products."""
    shape, table = layer.shape, layer.table
    height = 2 * shape.pooled_rows
    for point in range(COUNT):
        # What is added at the point 1 is added to all the sums.
        start = bias if point == ONE else np.float32(0)
        for r in range(0, height, TILE):
            tile = filled(start)
            for p in range(table.starts[m], table.starts[m + 1]):
                taps = load_taps(layer.taps, (point * len(table.sources) + p) * K)
                i = _line(point, q, table.sources[p], shape.strips, shape.maps, shape.line)
                tile = convolve(tile, scratch.pixels, i + r * LANES, taps)
            store_tile(tile, scratch.products, (point * shape.line + r) * LANES)


@inlined
def _squash(products, line, a):
    """A strip of sums, at the points -> their tanh, a (rows, 4, 8)."""
    for i in range(0, len(a) // STRIP, LANES):
        z0, z1, z2, z3 = gather_sums(products, i, line * LANES)
        store(a, i * STRIP, tanh(z0))
        store(a, i * STRIP + LANES, tanh(z1))
        store(a, i * STRIP + 2 * LANES, tanh(z2))
        store(a, i * STRIP + 3 * LANES, tanh(z3))


@inlined
def _pool(a, pooled, slope, start, slope_row, y, y_start, y_row):
    """A strip a (rows, 4, 8) -> y and dy/dz as slope, rows of pixels that far apart."""
    one = splat(np.float32(1))
    minus = splat(np.float32(-1))
    quarter = splat(np.float32(0.25))
    for r in range(len(a) // (2 * STRIP * LANES)):
        for s in range(pooled):
            i = (2 * r * STRIP + 2 * s) * LANES
            j = i + STRIP * LANES
            a0 = load(a, i)
            a1 = load(a, i + LANES)
            b0 = load(a, j)
            b1 = load(a, j + LANES)
            out = tanh(mul(quarter, add(add(a0, a1), add(b0, b1))))
            store(y, y_start + r * y_row + s * LANES, out)
            scale = mul(quarter, fma(mul(minus, out), out, one))
            j = start + 2 * r * slope_row + 2 * s * LANES
            store(slope, j, mul(scale, fma(mul(minus, a0), a0, one)))
            store(slope, j + LANES, mul(scale, fma(mul(minus, a1), a1, one)))
            store(slope, j + slope_row, mul(scale, fma(mul(minus, b0), b0, one)))
            store(slope, j + slope_row + LANES, mul(scale, fma(mul(minus, b1), b1, one)))


@compiled()
def _forward_group(layer, bias, scratch, slope, y, y_rows, y_columns):
    """The input at the points -> slope (M, 2R, 2S, 8), y in maps of y_rows x y_columns pixels."""
    shape = layer.shape
    row = 2 * shape.pooled * LANES
    for q in range(shape.strips):
        pooled = min(STRIP // 2, shape.pooled - q * STRIP // 2)
        for m in range(shape.outputs):
            _convolve_strip(layer, bias[m], scratch, q, m)
            _squash(scratch.products, shape.line, scratch.a)
            _pool(
                scratch.a,
                pooled,
                slope,
                m * 2 * shape.pooled_rows * row + q * STRIP * LANES,
                row,
                y,
                (m * y_rows * y_columns + q * STRIP // 2) * LANES,
                y_columns * LANES,
            )


# --- backward, one group ------------------------------------------------------------------------


@compiled()
def _spread_gradient(grad, grad_rows, grad_columns, shape, slope, strip, strips, d, db):
    """Gradients at y and slope -> d, at the sums of some strips, at the points; db is added to."""
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
                place = _line(0, q, m, shape.at_once, shape.outputs, shape.gradient_line)
                spread_sums(d0, d1, d2, d3, d, place + r * LANES, len(d) // COUNT)
                total = add(total, add(add(d0, d1), add(d2, d3)))
        store(db, m * LANES, total)


@compiled()
def _weight_gradient(layer, scratch, point, strip, strips, taps):
    """Of some strips, at one of the points: taps (8, P, 5, 8) are added to."""
    shape, table = layer.shape, layer.table
    connections = len(table.sources)
    for p in range(connections):
        tile = filled(np.float32(0))
        for q in range(strips):
            c, m = table.sources[p], table.outputs[p]
            i = _line(point, strip + q, c, shape.strips, shape.maps, shape.line)
            j = _line(point, q, m, shape.at_once, shape.outputs, shape.gradient_line)
            for r in range(0, 2 * shape.pooled_rows * LANES, 2 * LANES):
                tile = correlate(tile, scratch.pixels, i + r, scratch.d, j + r)
        add_taps(tile, taps, (point * connections + p) * K * LANES)


@compiled()
def _input_gradient(layer, scratch, point, strip, strips):
    """Of some strips, at one of the points."""
    shape, table = layer.shape, layer.table
    connections = len(table.sources)
    out = scratch.pixel_gradients
    height = 2 * shape.pooled_rows * LANES
    for p in range(connections):
        taps = load_taps(layer.taps, (point * connections + p) * K)
        for q in range(strips):
            c, m = table.sources[p], table.outputs[p]
            i = _line(point, strip + q, c, shape.strips, shape.maps, shape.gradient_line)
            j = _line(point, q, m, shape.at_once, shape.outputs, shape.gradient_line)
            for r in range(0, height + (K - 1) * LANES, K * LANES):
                if r == 0:
                    convolve_back_after_zeros(scratch.d, j, taps, out, i)
                elif r >= height:
                    convolve_back_before_zeros(scratch.d, j + r, taps, out, i + r)
                else:
                    convolve_back(scratch.d, j + r, taps, out, i + r)


@compiled()
def _gather_input_gradient(pixel_gradients, shape, dx):
    """At the points -> at the framed input, dx (C, rows, columns, 8)."""
    step = len(pixel_gradients) // COUNT
    for c in range(shape.maps):
        for r in range(2 * shape.pooled_rows + K - 1):
            j = (c * shape.rows + r) * shape.columns * LANES
            shared = no_pixels()
            for q in range(shape.strips):
                i = _line(0, q, c, shape.strips, shape.maps, shape.gradient_line) + r * LANES
                shared = gather_pixels(shared, pixel_gradients, i, step, dx, j)
                j += STRIP * LANES
            store(dx, j, shared[0])
            store(dx, j + LANES, shared[1])
            store(dx, j + 2 * LANES, shared[2])
            store(dx, j + 3 * LANES, shared[3])


@compiled()
def _backward_group(grad, grad_rows, grad_columns, layer, scratch, slope, want_input, taps, db):
    """Gradients of one group: taps (8, P, 5, 8) and db (M, 8) are added to.

    Grad is at y, maps of grad_rows x grad_columns pixels. The gradient at the input is left at the
    points.
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
def _add_up(parts, out):
    """Parts (T, N, 8) -> out (N,), always in the same order."""
    for i in range(len(out)):
        total = load(parts[0], i * LANES)
        for t in range(1, len(parts)):
            total = add(total, load(parts[t], i * LANES))
        out[i] = total_of(total)


@compiled()
def _sum_of_taps(parts, weight):
    """Gradients at the points (T, 8, P, 5, 8) -> at the weights (P, 5, 5)."""
    spread = np.empty(parts.shape[1] // LANES, np.float32)
    _add_up(parts, spread)
    _gather_taps(spread, weight)


# --- one block, all groups ----------------------------------------------------------------------


@compiled(parallel=True)
def _forward(x, groups, shape, table, weight, bias, threads, slope, y):
    """X (G, C, H, W, 8) -> slope (G, M, 2R, 2S, 8) and y (G, M, R, S, 8)."""
    spread = _spread_taps(weight)
    for t in prange(threads):
        layer = Layer(shape, table, spread)
        scratch = _scratch_of(_scratches(shape, 1, False), 0)
        for g in range(t * groups // threads, (t + 1) * groups // threads):
            _frame_lanes(_part(x, g, groups), shape, scratch.framed)
            _spread_input(scratch.framed, shape, scratch.pixels)
            outs = _part(slope, g, groups), _part(y, g, groups)
            _forward_group(layer, bias, scratch, *outs, shape.pooled_rows, shape.pooled)


@compiled(parallel=True)
def _backward(grad, x, groups, shape, table, weight, slope, threads, want_input, dx, dw, db):
    """Gradients at x, like x, and at the parameters: dw (P, 25) and db (M,).

    Every thread adds up its own groups in order, so that the same number of threads gives the same
    bits.
    """
    spread = _spread_taps(weight)
    taps = np.zeros((threads, len(spread) * LANES), np.float32)
    biases = np.zeros((threads, len(db) * LANES), np.float32)
    for t in prange(threads):
        layer = Layer(shape, table, spread)
        scratch = _scratch_of(_scratches(shape, 1, True), 0)
        framed = np.zeros(shape.framed if want_input else 0, np.float32)
        for g in range(t * groups // threads, (t + 1) * groups // threads):
            _frame_lanes(_part(x, g, groups), shape, scratch.framed)
            _spread_input(scratch.framed, shape, scratch.pixels)
            _backward_group(
                _part(grad, g, groups),
                shape.pooled_rows,
                shape.pooled,
                layer,
                scratch,
                _part(slope, g, groups),
                want_input,
                taps[t],
                biases[t],
            )
            if want_input:
                _gather_input_gradient(scratch.pixel_gradients, shape, framed)
                _unframe_lanes(framed, shape, _part(dx, g, groups))
    _sum_of_taps(taps, dw)
    _add_up(biases, db)


# --- two blocks in a row ------------------------------------------------------------------------


@compiled()
def _kept(shape, shape2):
    """Floats that a group keeps for its way back: both slopes and the second block's input."""
    return shape.slopes + shape2.framed + shape2.slopes


@compiled()
def _kept_parts(state, shape, shape2):
    """Slope of the first block, framed input and slope of the second."""
    end = shape.slopes + shape2.framed
    return state[: shape.slopes], state[shape.slopes : end], state[end:]


@compiled()
def _inside(framed, shape):
    """A frame from its first pixel of the input on."""
    return framed[(shape.padding * shape.columns + shape.padding) * LANES :]


@compiled()
def _forward_both(first, bias, second, bias2, scratch, scratch2, state, y):
    """Framed images of one group -> y (M2, R2, S2, 8) and state."""
    shape, shape2 = first.shape, second.shape
    slope, middle, slope2 = _kept_parts(state, shape, shape2)
    middle[:] = 0
    _spread_input(scratch.framed, shape, scratch.pixels)
    inside = _inside(middle, shape2)
    _forward_group(first, bias, scratch, slope, inside, shape2.rows, shape2.columns)
    _spread_input(middle, shape2, scratch2.pixels)
    _forward_group(second, bias2, scratch2, slope2, y, shape2.pooled_rows, shape2.pooled)


@compiled()
def _backward_both(grad, first, second, scratch, scratch2, state, taps, db, taps2, db2):
    """Gradients of one group, added to; scratch still holds its pixels at the points."""
    shape2 = second.shape
    slope, _, slope2 = _kept_parts(state, first.shape, shape2)
    rows, columns = shape2.pooled_rows, shape2.pooled
    _backward_group(grad, rows, columns, second, scratch2, slope2, True, taps2, db2)
    _gather_input_gradient(scratch2.pixel_gradients, shape2, scratch2.framed)
    inside = _inside(scratch2.framed, shape2)
    _backward_group(inside, shape2.rows, shape2.columns, first, scratch, slope, False, taps, db)


@compiled(parallel=True)
def _forward_two(
    x, batch, shape, table, weight, bias, shape2, table2, weight2, bias2, threads, keep, state, y
):
    """Images x (B, C, H, W) -> y (B, M2, R2, S2), and each group's state (G, ...), if it is kept.

    Else state is (T, ...).
    """
    groups = -(-batch // LANES)
    features = shape2.features
    spread, spread2 = _spread_taps(weight), _spread_taps(weight2)
    for t in prange(threads):
        first, second = Layer(shape, table, spread), Layer(shape2, table2, spread2)
        scratch = _scratch_of(_scratches(shape, 1, False), 0)
        scratch2 = _scratch_of(_scratches(shape2, 1, False), 0)
        out = np.empty(features * LANES, np.float32)
        for g in range(t * groups // threads, (t + 1) * groups // threads):
            image = g * LANES
            _frame_images(x, image, batch, shape, scratch.framed)
            part = _part(state, g, groups) if keep else _part(state, t, threads)
            _forward_both(first, bias, second, bias2, scratch, scratch2, part, out)
            _out_of_lanes(out, batch - image, features, y, image * features, features)


@compiled(parallel=True)
def _backward_two(
    grad,
    x,
    batch,
    shape,
    table,
    weight,
    shape2,
    table2,
    weight2,
    threads,
    state,
    dw,
    db,
    dw2,
    db2,
):
    """Gradients at the parameters of both blocks: (P, 25), (M,), (P2, 25) and (M2,)."""
    groups = -(-batch // LANES)
    features = shape2.features
    spread, spread2 = _spread_taps(weight), _spread_taps(weight2)
    taps = np.zeros((threads, len(spread) * LANES), np.float32)
    taps2 = np.zeros((threads, len(spread2) * LANES), np.float32)
    biases = np.zeros((threads, len(db) * LANES), np.float32)
    biases2 = np.zeros((threads, len(db2) * LANES), np.float32)
    for t in prange(threads):
        first, second = Layer(shape, table, spread), Layer(shape2, table2, spread2)
        scratch = _scratch_of(_scratches(shape, 1, True), 0)
        scratch2 = _scratch_of(_scratches(shape2, 1, True), 0)
        out = np.zeros(features * LANES, np.float32)
        # Backwards: the last groups of the forward pass are still in the cache.
        for g in range((t + 1) * groups // threads - 1, t * groups // threads - 1, -1):
            image = g * LANES
            part = _part(state, g, groups)
            _, middle, _ = _kept_parts(part, shape, shape2)
            _frame_images(x, image, batch, shape, scratch.framed)
            _spread_input(scratch.framed, shape, scratch.pixels)
            _spread_input(middle, shape2, scratch2.pixels)
            _into_lanes(grad, image * features, features, batch - image, features, out, 0)
            _backward_both(
                out,
                first,
                second,
                scratch,
                scratch2,
                part,
                taps[t],
                biases[t],
                taps2[t],
                biases2[t],
            )
    _sum_of_taps(taps, dw)
    _sum_of_taps(taps2, dw2)
    _add_up(biases, db)
    _add_up(biases2, db2)


# --- dense layers, one group --------------------------------------------------------------------


@compiled()
def _dense(x, inputs, weight, bias, squash, out):
    """Sums x (inputs, 8) by weight (outputs, inputs), plus bias: out (outputs, 8)."""
    outputs = len(bias)
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
def _dense_input_gradient(d, d_start, outputs, weight, inputs, dx):
    """Gradient d (outputs, 8) at a layer's sums -> dx (inputs, 8) at its input."""
    for tile_start in range(0, inputs, TILE):
        i = min(tile_start, inputs - TILE)
        tile = filled(np.float32(0))
        for o in range(outputs):
            tile = add_outer(tile, d, d_start + o * LANES, weight, o * inputs + i, 1)
        store_tile(tile, dx, i * LANES)


@compiled()
def _through_tanh(dy, y, count, d, d_start):
    """Gradient dy (count, 8) at y = tanh(z) -> d at z."""
    one = splat(np.float32(1))
    minus = splat(np.float32(-1))
    for i in range(0, count * LANES, LANES):
        v = load(y, i)
        store(d, d_start + i, mul(load(dy, i), fma(mul(minus, v), v, one)))


@compiled()
def _cross_entropy(z, classes, images, labels, index, first, share, d, d_start, losses):
    """Logits z (classes, 8) -> the losses of this group, and d, share times their gradient at z.

    Lanes from `images` on hold no image: their gradient is 0.
    """
    for lane in range(LANES):
        if lane >= images:
            for k in range(classes):
                d[d_start + k * LANES + lane] = 0
            continue
        most = z[lane]
        for k in range(1, classes):
            most = max(most, z[k * LANES + lane])
        total = np.float32(0)
        for k in range(classes):
            power = np.exp(z[k * LANES + lane] - most)
            d[d_start + k * LANES + lane] = power
            total += power
        right = labels[index[first + lane]] * LANES + lane
        losses[first + lane] = np.log(total) - (z[right] - most)
        for k in range(classes):
            d[d_start + k * LANES + lane] *= share / total
        d[d_start + right] -= share


@compiled()
def _dense_gradient(d, x, batch, outputs, inputs, first, last, dw):
    """Sums over the batch of d (G, outputs, 8) times x (B, inputs): columns first to last - 1."""
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
def _dense_bias_gradient(d, groups, outputs, db):
    """Sums over the batch of d (G, outputs, 8)."""
    for o in range(outputs):
        total = np.float32(0)
        for g in range(groups):
            for lane in range(LANES):
                total += d[(g * outputs + o) * LANES + lane]
        db[o] = total


# --- LeNet-5 as a whole -------------------------------------------------------------------------


class Parameters(NamedTuple):
    """LeNet-5's, or their gradients; each flat."""

    c1: np.ndarray[Any, Any]
    c1_bias: np.ndarray[Any, Any]
    c3: np.ndarray[Any, Any]
    c3_bias: np.ndarray[Any, Any]
    c5: np.ndarray[Any, Any]
    c5_bias: np.ndarray[Any, Any]
    f6: np.ndarray[Any, Any]
    f6_bias: np.ndarray[Any, Any]
    output: np.ndarray[Any, Any]
    output_bias: np.ndarray[Any, Any]


@compiled()
def _pick_images(x, index, first, images, pixels, unit, out):
    """Images index[first], index[first + 1], ... of x (N, pixels), in units: out (8, pixels)."""
    for lane in range(min(images, LANES)):
        start = index[first + lane] * pixels
        # Slices, so that the compiler knows the index to be above 0 and uses vectors.
        image, row = x[start : start + pixels], out[lane * pixels : (lane + 1) * pixels]
        for s in range(pixels):
            row[s] = np.float32(image[s]) / unit


@compiled(parallel=True)
def _lenet5_gradient(
    x,
    unit,
    labels,
    index,
    share,
    shape,
    table,
    shape2,
    table2,
    net,
    threads,
    scratches,
    scratches2,
    gradients,
    losses,
):
    """Cross-entropies of the images x[index] / unit, and share times the gradients of their sum.

    A group of eight images goes through the whole net and back before the next one begins, so that
    all of it stays in the cache.
    """
    batch = len(index)
    groups = -(-batch // LANES)
    pixels = shape.maps * shape.height * shape.width
    maps = shape2.features
    units, units2, classes = len(net.c5_bias), len(net.f6_bias), len(net.output_bias)
    # For the gradients at the dense weights: each layer's input, image by image ...
    rows = np.empty(batch * maps, np.float32)
    rows5 = np.empty(batch * units, np.float32)
    rows6 = np.empty(batch * units2, np.float32)
    # ... and the gradient at its sums, (G, outputs, 8).
    d5 = np.empty(groups * units * LANES, np.float32)
    d6 = np.empty(groups * units2 * LANES, np.float32)
    d7 = np.empty(groups * classes * LANES, np.float32)
    spread, spread2 = _spread_taps(net.c1), _spread_taps(net.c3)
    taps = np.empty((threads, len(spread) * LANES), np.float32)
    taps2 = np.empty((threads, len(spread2) * LANES), np.float32)
    biases = np.empty((threads, len(net.c1_bias) * LANES), np.float32)
    biases2 = np.empty((threads, len(net.c3_bias) * LANES), np.float32)
    for t in prange(threads):
        first, second = Layer(shape, table, spread), Layer(shape2, table2, spread2)
        scratch, scratch2 = _scratch_of(scratches, t), _scratch_of(scratches2, t)
        state = np.empty(_kept(shape, shape2), np.float32)
        y4 = np.empty(maps * LANES, np.float32)
        dy4 = np.empty(maps * LANES, np.float32)
        y5 = np.empty(units * LANES, np.float32)
        dy5 = np.empty(units * LANES, np.float32)
        y6 = np.empty(units2 * LANES, np.float32)
        dy6 = np.empty(units2 * LANES, np.float32)
        logits = np.empty(classes * LANES, np.float32)
        picked = np.empty(pixels * LANES, np.float32)
        taps[t], biases[t], taps2[t], biases2[t] = 0, 0, 0, 0
        for g in range(t * groups // threads, (t + 1) * groups // threads):
            image = g * LANES
            images = batch - image
            _pick_images(x, index, image, images, pixels, unit, picked)
            _frame_images(picked, 0, images, shape, scratch.framed)
            _forward_both(first, net.c1_bias, second, net.c3_bias, scratch, scratch2, state, y4)
            _dense(y4, maps, net.c5, net.c5_bias, True, y5)
            _dense(y5, units, net.f6, net.f6_bias, True, y6)
            _dense(y6, units2, net.output, net.output_bias, False, logits)
            at7 = g * classes * LANES
            at6 = g * units2 * LANES
            at5 = g * units * LANES
            _cross_entropy(logits, classes, images, labels, index, image, share, d7, at7, losses)
            _dense_input_gradient(d7, at7, classes, net.output, units2, dy6)
            _through_tanh(dy6, y6, units2, d6, at6)
            _dense_input_gradient(d6, at6, units2, net.f6, units, dy5)
            _through_tanh(dy5, y5, units, d5, at5)
            _dense_input_gradient(d5, at5, units, net.c5, maps, dy4)
            _out_of_lanes(y4, images, maps, rows, image * maps, maps)
            _out_of_lanes(y5, images, units, rows5, image * units, units)
            _out_of_lanes(y6, images, units2, rows6, image * units2, units2)
            _backward_both(
                dy4,
                first,
                second,
                scratch,
                scratch2,
                state,
                taps[t],
                biases[t],
                taps2[t],
                biases2[t],
            )
    # Columns over threads: no two write the same, and the order of the sums is the batch's.
    for t in prange(threads):
        columns = -(-maps // LANES)
        begin = t * columns // threads * LANES
        end = min(maps, (t + 1) * columns // threads * LANES)
        _dense_gradient(d5, rows, batch, units, maps, begin, end, gradients.c5)
        if t == 0:
            _sum_of_taps(taps, gradients.c1)
            _add_up(biases, gradients.c1_bias)
            _sum_of_taps(taps2, gradients.c3)
            _add_up(biases2, gradients.c3_bias)
        if t == threads - 1:
            _dense_gradient(d6, rows5, batch, units2, units, 0, units, gradients.f6)
            _dense_gradient(d7, rows6, batch, classes, units2, 0, units2, gradients.output)
            _dense_bias_gradient(d5, groups, units, gradients.c5_bias)
            _dense_bias_gradient(d6, groups, units2, gradients.f6_bias)
            _dense_bias_gradient(d7, groups, classes, gradients.output_bias)


@compiled()
def _step(weight, gradient, rate):
    for i in range(len(weight)):
        weight[i] -= rate * gradient[i]


@compiled()
def _lenet5_descent(
    x,
    unit,
    labels,
    order,
    sizes,
    shares,
    rates,
    shape,
    table,
    shape2,
    table2,
    net,
    threads,
    scratches,
    scratches2,
    gradients,
    losses,
):
    """A step for each of K mini-batches, and their losses (K,), weighted by their shares."""
    end = 0
    for k in range(len(sizes)):
        begin, end = end, end + sizes[k]
        each = np.empty(sizes[k], np.float32)
        _lenet5_gradient(
            x,
            unit,
            labels,
            order[begin:end],
            shares[k],
            shape,
            table,
            shape2,
            table2,
            net,
            threads,
            scratches,
            scratches2,
            gradients,
            each,
        )
        _step(net.c1, gradients.c1, rates[k])
        _step(net.c1_bias, gradients.c1_bias, rates[k])
        _step(net.c3, gradients.c3, rates[k])
        _step(net.c3_bias, gradients.c3_bias, rates[k])
        _step(net.c5, gradients.c5, rates[k])
        _step(net.c5_bias, gradients.c5_bias, rates[k])
        _step(net.f6, gradients.f6, rates[k])
        _step(net.f6_bias, gradients.f6_bias, rates[k])
        _step(net.output, gradients.output, rates[k])
        _step(net.output_bias, gradients.output_bias, rates[k])
        losses[k] = each.sum() * shares[k]


# --- launchers ----------------------------------------------------------------------------------


def _flat(x: Tensor) -> np.ndarray[Any, Any]:
    # ravel, not reshape(-1): that leaves the strides of 0 of an expanded tensor as they are.
    array: np.ndarray[Any, Any] = x.detach().numpy().ravel()
    return array


def forward(
    x: Tensor, weight: Tensor, bias: Tensor, connections: Tensor, padding: int
) -> tuple[Tensor, Tensor]:
    """Runs the block.

    Args:
        x: (G, C, H, W, 8) float32.
        weight: (P, 5, 5).
        bias: (M,).
        connections: (P, 2), sorted by output map.
        padding: zeros on each side of H and W.

    Returns:
        y (G, M, R, S, 8), and its derivative by the sums before the tanh (G, M, 2R, 2S, 8).

    Raises:
        TypeError: an argument of another type.
        ValueError: shapes that do not fit, connections of maps that do not exist.
    """
    doors.check_conv_pool(x, weight, bias, connections, padding, doors.GROUPS)
    groups, maps, height, width, _ = x.shape
    shape = _shape(maps, height, width, padding, len(bias))
    table = _table(connections, len(bias), maps)
    y = x.new_empty(groups, len(bias), shape.pooled_rows, shape.pooled, LANES)
    slope = x.new_empty(groups, len(bias), 2 * shape.pooled_rows, 2 * shape.pooled, LANES)
    arrays = (_flat(weight), _flat(bias))
    _forward(_flat(x), groups, shape, table, *arrays, use_threads(groups), _flat(slope), _flat(y))
    return y, slope


def backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    connections: Tensor,
    padding: int,
    slope: Tensor,
    want_input: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `forward`'s first result; arguments and errors as there.

    Returns:
        At x (empty unless `want_input`), weight and bias.
    """
    doors.check_conv_pool_gradient(grad, x, weight, connections, padding, slope, doors.GROUPS)
    groups, maps, height, width, _ = x.shape
    outputs = slope.shape[1]
    dx = x.new_empty(x.shape if want_input else 0)
    dw = torch.empty_like(weight, memory_format=torch.contiguous_format)
    db = x.new_empty(outputs)
    _backward(
        _flat(grad),
        _flat(x),
        groups,
        _shape(maps, height, width, padding, outputs),
        _table(connections, outputs, maps),
        _flat(weight),
        _flat(slope),
        use_threads(groups),
        want_input,
        _flat(dx),
        _flat(dw),
        _flat(db),
    )
    return dx, dw, db


class Block(NamedTuple):
    """What one block computes with; `forward` says more."""

    weight: Tensor
    bias: Tensor
    connections: Tensor
    padding: int


def _two(x: Tensor, first: Block, second: Block) -> tuple[Shape, Table, Shape, Table]:
    doors.check_conv_pool(x, *first)
    shape = _shape(*x.shape[1:], first.padding, len(first.bias))
    between = x.new_empty(0, shape.outputs, shape.pooled_rows, shape.pooled)
    doors.check_conv_pool(between, *second)
    return (
        shape,
        _table(first.connections, shape.outputs, shape.maps),
        _shape(*between.shape[1:], second.padding, len(second.bias)),
        _table(second.connections, len(second.bias), shape.outputs),
    )


def forward_two(x: Tensor, first: Block, second: Block, keep: bool = True) -> tuple[Tensor, Tensor]:
    """Runs two blocks in a row: one start of the threads, and a group's maps stay in the cache.

    Args:
        x: (B, C, H, W) float32.
        first: the block that reads x.
        second: the block that reads the first one's maps.
        keep: whether `backward_two` will be called.

    Returns:
        y (B, M, R, S) of the second, and what `backward_two` needs.

    Raises:
        TypeError: an argument of another type.
        ValueError: shapes that do not fit, connections of maps that do not exist.
    """
    shape, table, shape2, table2 = _two(x, first, second)
    groups = -(-len(x) // LANES)
    threads = use_threads(groups)
    y = x.new_empty(len(x), shape2.outputs, shape2.pooled_rows, shape2.pooled)
    # One piece: so malloc keeps the memory, and the next iteration finds its pages mapped.
    state = x.new_empty((groups if keep else threads) * _kept(shape, shape2))
    _forward_two(
        _flat(x),
        len(x),
        shape,
        table,
        _flat(first.weight),
        _flat(first.bias),
        shape2,
        table2,
        _flat(second.weight),
        _flat(second.bias),
        threads,
        keep,
        _flat(state),
        _flat(y),
    )
    return y, state


def backward_two(
    grad: Tensor, x: Tensor, first: Block, second: Block, state: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of `forward_two`'s first result; arguments and errors as there.

    Returns:
        At the weight and the bias of the first, and of the second block.
    """
    shape, table, shape2, table2 = _two(x, first, second)
    pooled = (len(x), shape2.outputs, shape2.pooled_rows, shape2.pooled)
    kept = -(-len(x) // LANES) * _kept(shape, shape2)
    doors.check_tensor("grad", grad, torch.float32, pooled, x.device)
    doors.check_tensor("state", state, torch.float32, (kept,), x.device)
    gradients = [
        torch.empty_like(parameter, memory_format=torch.contiguous_format)
        for parameter in (first.weight, first.bias, second.weight, second.bias)
    ]
    _backward_two(
        _flat(grad),
        _flat(x),
        len(x),
        shape,
        table,
        _flat(first.weight),
        shape2,
        table2,
        _flat(second.weight),
        use_threads(-(-len(x) // LANES)),
        _flat(state),
        *map(_flat, gradients),
    )
    dw, db, dw2, db2 = gradients
    return dw, db, dw2, db2


class LeNet5Gradient:
    """The gradient of LeNet-5 for images of 28 x 28 pixels, alone and followed by steps.

    Args:
        first: C1 and S2.
        second: C3 and S4.
        parameters: weights and biases of C1, C3, C5, F6 and the output layer, contiguous; read anew
            by every call.
        gradients: where their gradients go, of the same shapes.

    Raises:
        TypeError: an argument of another type.
        ValueError: shapes that do not fit, connections of maps that do not exist, parameters that
            are not contiguous.
    """

    def __init__(
        self,
        first: Block,
        second: Block,
        parameters: Sequence[Tensor],
        gradients: Sequence[Tensor],
    ) -> None:
        self._tables = _two(torch.empty(0, 1, 28, 28), first, second)
        convolutions = (first.weight, first.bias, second.weight, second.bias)
        features = self._tables[2].features
        doors.check_parameters(parameters, convolutions, features)
        doors.check_parameters(gradients, parameters[:4], features)
        self._classes = range(len(parameters[-1]))
        self._parameters = Parameters(*map(_flat, parameters))
        self._gradients = Parameters(*map(_flat, gradients))
        self._memory: tuple[int, Scratch, Scratch] | None = None

    def _threads(self, images: int) -> tuple[int, Scratch, Scratch]:
        """How many compute for that many images, and their memory, which later calls use again."""
        threads = use_threads(-(-images // LANES))
        if self._memory is None or self._memory[0] != threads:
            shape, _, shape2, _ = self._tables
            self._memory = (
                threads,
                _scratches(shape, threads, True),
                _scratches(shape2, threads, True),
            )
        return self._memory

    def __call__(self, x: Tensor, labels: Tensor, share: float) -> Tensor:
        """Writes the gradients of share times the sum of the cross-entropies.

        Args:
            x: (B, 1, 28, 28) float32.
            labels: (B,) int64.
            share: weight of each image.

        Returns:
            The cross-entropy of each image (B,).

        Raises:
            TypeError: an argument of another type.
            ValueError: another shape, or a label that is no class.
        """
        doors.check_tensor("x", x, torch.float32, ("B", 1, 28, 28), CPU)
        doors.check_labels(labels, self._classes, x)
        losses = np.empty(len(x), np.float32)
        _lenet5_gradient(
            _flat(x),
            np.float32(1),
            _flat(labels),
            np.arange(len(x)),
            np.float32(share),
            *self._tables,
            self._parameters,
            *self._threads(len(x)),
            self._gradients,
            losses,
        )
        return torch.from_numpy(losses)

    def descend(
        self,
        images: Tensor,
        labels: Tensor,
        order: Tensor,
        sizes: np.ndarray[Any, Any],
        shares: Tensor,
        rates: Tensor,
    ) -> Tensor:
        """Takes K steps of plain gradient descent, one after the other.

        Args:
            images: (N, 28, 28) uint8, contiguous; 255 counts as 1.
            labels: (N,) int64.
            order: (n,) int64, the images of the first mini-batch, of the second, ...
            sizes: (K,) int64, how many each has.
            shares: (K,) weight of each image in the loss of its mini-batch.
            rates: (K,) learning rates.

        Returns:
            The loss of each mini-batch (K,).

        Raises:
            TypeError: an argument of another type.
            ValueError: another shape, a label that is no class, an image that does not exist, or
                sizes that do not add up.
        """
        doors.check_images(images, (28, 28), order, CPU)
        doors.check_labels(labels, self._classes, images)
        doors.check_steps(sizes, shares, rates, len(order))
        losses = np.empty(len(sizes), np.float32)
        _lenet5_descent(
            _flat(images),
            np.float32(255),
            _flat(labels),
            _flat(order),
            np.ascontiguousarray(sizes),
            _flat(shares.float()),
            _flat(rates.float()),
            *self._tables,
            self._parameters,
            *self._threads(int(sizes.max(initial=0))),
            self._gradients,
            losses,
        )
        return torch.from_numpy(losses)
