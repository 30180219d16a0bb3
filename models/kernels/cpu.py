"""The fused block on the CPU: compiled by Numba, eight images to a vector, groups over threads.

All images are in the layout of `lanes.py`. Numba writes the machine code to `__pycache__`, so that
only the first run of a machine waits for it. One file, since Numba's cache watches one file.

Shapes: B images, G groups, C input maps, M output maps, P connections, H W input pixels, R S
pooled pixels (so 2R 2S convolved ones), T threads. Arrays are flat inside the kernels; comments
give shapes.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from llvmlite import ir
from numba import njit, prange, types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic, models, register_model
from torch import Tensor

from models.kernels.lanes import LANES

MOST_THREADS = numba.get_num_threads()
K = 5  # height and width of a kernel
OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}

# --- eight floats as one value ------------------------------------------------------------------


class Vector(types.Type):
    """Numba's name for eight float32 in one register (two, where registers are narrow)."""

    def __init__(self) -> None:
        super().__init__(name="Vector")


VECTOR = Vector()
FLOATS = ir.VectorType(ir.FloatType(), LANES)
INTEGERS = ir.VectorType(ir.IntType(32), LANES)


@register_model(Vector)
class VectorModel(models.PrimitiveModel):
    """A Vector is LLVM's <8 x float>."""

    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, FLOATS)


def _address(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), FLOATS.as_pointer())


def _constant(value: float) -> Any:
    return ir.Constant(FLOATS, [float(np.float32(value))] * LANES)


def _llvm(builder: Any, name: str, *args: Any) -> Any:
    kind = ir.FunctionType(FLOATS, [FLOATS] * len(args))
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.v{LANES}f32")
    return builder.call(function, args)


def _splat(builder: Any, value: Any) -> Any:
    undefined = ir.Constant(FLOATS, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(INTEGERS, [0] * LANES))


def _require_contiguous(array: Any) -> None:
    if array.layout != "C":
        raise TypingError("vectors are loaded and stored without regard to strides")


@intrinsic
def load(typing: Any, array: Any, index: Any) -> Any:
    """array[index : index + 8]."""
    _require_contiguous(array)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_address(context, builder, signature.args[0], *args), align=4)

    return VECTOR(array, types.intp), generate


@intrinsic
def store(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """array[index : index + 8] = value."""
    _require_contiguous(array)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array, index, value = args
        address = _address(context, builder, signature.args[0], array, index)
        builder.store(value, address, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, VECTOR), generate


@intrinsic
def splat(typing: Any, value: Any) -> Any:
    """The float32 value eight times."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _splat(builder, args[0])

    return VECTOR(types.float32), generate


@intrinsic
def fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """A * b + c, in one instruction where there is one."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _llvm(builder, "fmuladd", *args)

    return VECTOR(VECTOR, VECTOR, VECTOR), generate


@intrinsic
def add(typing: Any, a: Any, b: Any) -> Any:
    """A + b."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fadd(*args)

    return VECTOR(VECTOR, VECTOR), generate


@intrinsic
def mul(typing: Any, a: Any, b: Any) -> Any:
    """A * b."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fmul(*args)

    return VECTOR(VECTOR, VECTOR), generate


@intrinsic
def transpose(typing: Any, x: Any, i: Any, x_step: Any, out: Any, j: Any, out_step: Any) -> Any:
    """Eight vectors of x, x_step apart from x[i] on, as columns of eight vectors of out."""
    _require_contiguous(x)
    _require_contiguous(out)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x_type, *_, out_type, _, _ = signature.args
        x, i, x_step, out, j, out_step = args

        def addresses(array_type: Any, array: Any, start: Any, step: Any) -> Any:
            for n in range(LANES):
                index = builder.add(start, builder.mul(step, ir.Constant(step.type, n)))
                yield _address(context, builder, array_type, array, index)

        rows = [builder.load(place, align=4) for place in addresses(x_type, x, i, x_step)]
        half = LANES // 2
        # Each pass rotates the bits of (row, column) by one; half of them is a transposition.
        for _ in range(LANES.bit_length() - 1):
            rows = [
                builder.shuffle_vector(
                    rows[n], rows[n + half], ir.Constant(INTEGERS, [*_interleaved(start)])
                )
                for n in range(half)
                for start in (0, half)
            ]
        for row, place in zip(rows, addresses(out_type, out, j, out_step), strict=True):
            builder.store(row, place, align=4)
        return context.get_dummy_value()

    return types.void(x, types.intp, types.intp, out, types.intp, types.intp), generate


def _interleaved(start: int) -> Iterator[int]:
    """Half of one vector's lanes and half of another's, by turns."""
    for lane in range(start, start + LANES // 2):
        yield from (lane, lane + LANES)


TILE = 2 * K  # sums that stay in registers: five columns of two rows


def _load(context: Any, builder: Any, array_type: Any, array: Any, index: Any, step: int) -> Any:
    index = builder.add(index, ir.Constant(index.type, step))
    return builder.load(_address(context, builder, array_type, array, index), align=4)


@intrinsic
def filled(typing: Any, value: Any) -> Any:
    """A tile that holds the float32 value everywhere."""
    kind = types.UniTuple(VECTOR, TILE)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return context.make_tuple(builder, kind, [_splat(builder, args[0])] * TILE)

    return kind(types.float32), generate


def _convolution(first: int, last: int) -> Any:
    """The intrinsic that adds one row of a kernel to a tile, from pixels `first` to `last` - 1.

    A tile reads the pixels 0 to 8 of both its rows; the others must be zeros.
    """

    @intrinsic
    def convolve(
        typing: Any, tile: Any, x: Any, upper: Any, lower: Any, weight: Any, taps: Any
    ) -> Any:
        _require_contiguous(x)

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            _, x_type, *_, weight_type, _ = signature.args
            tile, x, upper, lower, weight, taps = args
            sums = cgutils.unpack_tuple(builder, tile)
            data = context.make_array(weight_type)(context, builder, weight).data
            weights = []
            for tap in range(K):
                index = builder.add(taps, ir.Constant(taps.type, tap))
                weights.append(_splat(builder, builder.load(builder.gep(data, [index]))))
            for row, start in enumerate((upper, lower)):
                for column in range(first, last):
                    # Every pixel is loaded once for all the sums that it belongs to.
                    pixel = _load(context, builder, x_type, x, start, column * LANES)
                    for tap in range(max(0, column - K + 1), min(K, column + 1)):
                        n = row * K + column - tap
                        sums[n] = _llvm(builder, "fmuladd", weights[tap], pixel, sums[n])
            return context.make_tuple(builder, signature.return_type, sums)

        return tile(tile, x, types.intp, types.intp, weight, types.intp), generate

    return convolve


# One row of a kernel, weight[taps : taps + 5], and five columns of two rows, which begin at
# x[upper] and x[lower].
convolve = _convolution(0, 2 * K - 1)
convolve_after_zeros = _convolution(K - 1, 2 * K - 1)
convolve_before_zeros = _convolution(0, K - 1)


@intrinsic
def correlate(typing: Any, tile: Any, x: Any, i: Any, d: Any, j: Any) -> Any:
    """Adds the products of d[j], d[j + 8] with five vectors of x each: taps, at two columns."""
    _require_contiguous(x)
    _require_contiguous(d)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, x_type, _, d_type, _ = signature.args
        tile, x, i, d, j = args
        sums = cgutils.unpack_tuple(builder, tile)
        pixels = [_load(context, builder, x_type, x, i, n * LANES) for n in range(K + 1)]
        for column in range(2):
            slope = _load(context, builder, d_type, d, j, column * LANES)
            for tap in range(K):
                n = column * K + tap
                sums[n] = _llvm(builder, "fmuladd", slope, pixels[column + tap], sums[n])
        return context.make_tuple(builder, signature.return_type, sums)

    return tile(tile, x, types.intp, d, types.intp), generate


# (2^f - 1) / f on [-1/2, 1/2]: least squares, reweighted towards the smallest maximum.
EXP2_MINUS_1 = (
    0.00015469733625650406,
    0.0013390866806730628,
    0.009618030861020088,
    0.055503569543361664,
    0.24022650718688965,
    0.6931471824645996,
)
SATURATED = 9.02  # tanh rounds to 1 from here on
ROUND = 1.5 * 2**23  # adding it leaves an integer in the lowest bits
ONE_AS_BITS = 0x3F800000


@intrinsic
def tanh(typing: Any, x: Any) -> Any:
    """The hyperbolic tangent, at most 1e-7 off anywhere, and 3e-7 of its value.

    It is e / (e + 2) with e = exp(2x) - 1, which keeps its digits near 0.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        (x,) = args
        for relation, limit in ((">", SATURATED), ("<", -SATURATED)):
            beyond = builder.fcmp_ordered(relation, x, _constant(limit))
            x = builder.select(beyond, _constant(limit), x)  # NaN stays NaN
        # exp(2x) = 2^n 2^f, n the nearest integer.
        scale = _constant(2 / np.log(2))
        shifted = _llvm(builder, "fmuladd", x, scale, _constant(ROUND))
        n = builder.fsub(shifted, _constant(ROUND))
        f = _llvm(builder, "fmuladd", x, scale, builder.fneg(n))
        series = _constant(EXP2_MINUS_1[0])
        for coefficient in EXP2_MINUS_1[1:]:
            series = _llvm(builder, "fmuladd", series, f, _constant(coefficient))
        exponent = builder.shl(
            builder.bitcast(shifted, INTEGERS), ir.Constant(INTEGERS, [23] * LANES)
        )
        one = ir.Constant(INTEGERS, [ONE_AS_BITS] * LANES)
        power = builder.bitcast(builder.add(exponent, one), FLOATS)  # 2^n
        e = _llvm(
            builder,
            "fmuladd",
            builder.fmul(series, f),
            power,
            builder.fsub(power, _constant(1)),
        )
        return builder.fdiv(e, builder.fadd(e, _constant(2)))

    return VECTOR(VECTOR), generate


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
    tiled: int
    """Columns of sums, in whole tiles."""
    rows: int
    """Of the frame of zeros that the input is put into."""
    columns: int
    left: int
    """Columns of zeros before the gradient at the sums, for the convolution back to the input."""
    gradient_tiled: int
    gradient_rows: int
    gradient_columns: int
    slopes: int
    """Floats of one group's slope."""
    framed: int
    """Floats of one group's framed input."""


class Table(NamedTuple):
    """The connections as the kernels walk them: by output map, and by input map."""

    starts: np.ndarray[Any, Any]
    """(M + 1,) where each output map's connections begin"""
    sources: np.ndarray[Any, Any]
    """(P,) input map of each connection"""
    outputs: np.ndarray[Any, Any]
    """(P,) output map of each connection"""
    by_source: np.ndarray[Any, Any]
    """(P,) the connections in the order of their input maps"""
    fed: np.ndarray[Any, Any]
    """(P,) their output maps in that order"""
    source_starts: np.ndarray[Any, Any]
    """(C + 1,) where each input map's begin in it"""


@lru_cache(maxsize=64)
def _shape(maps: int, height: int, width: int, padding: int, outputs: int) -> Shape:
    pooled_rows, pooled = ((size + 2 * padding - K + 1) // 2 for size in (height, width))
    tiled = -(-2 * pooled // K) * K
    rows, columns = height + 2 * padding, max(width + 2 * padding, tiled + K - 1)
    left = K - 1 - padding
    gradient_tiled = -(-width // K) * K
    return Shape(
        maps=maps,
        height=height,
        width=width,
        padding=padding,
        outputs=outputs,
        pooled_rows=pooled_rows,
        pooled=pooled,
        tiled=tiled,
        rows=rows,
        columns=columns,
        left=left,
        gradient_tiled=gradient_tiled,
        gradient_rows=2 * pooled_rows + 2,  # a row of zeros above and below
        gradient_columns=max(left + 2 * pooled, gradient_tiled + K - 1),
        slopes=outputs * 4 * pooled_rows * pooled * LANES,
        framed=maps * rows * columns * LANES,
    )


@lru_cache(maxsize=64)
def _table(pairs: bytes, maps: int, in_maps: int) -> Table:
    outputs, sources = np.frombuffer(pairs, np.int64).reshape(-1, 2).T.copy()
    starts = np.searchsorted(outputs, np.arange(maps + 1))
    by_source = np.argsort(sources, kind="stable")
    source_starts = np.searchsorted(sources[by_source], np.arange(in_maps + 1))
    return Table(starts, sources, outputs, by_source, outputs[by_source], source_starts)


# --- forward, one group -------------------------------------------------------------------------


@njit(**OPTIONS)
def _frame_lanes(x, start, shape, out):
    """One group (C, H, W, 8) into the middle of its frame of zeros (C, rows, columns, 8)."""
    for c in range(shape.maps):
        for r in range(shape.height):
            i = start + (c * shape.height + r) * shape.width * LANES
            j = (c * shape.rows + r + shape.padding) * shape.columns + shape.padding
            out[j * LANES : (j + shape.width) * LANES] = x[i : i + shape.width * LANES]


@njit(**OPTIONS)
def _frame_images(x, first, batch, shape, out):
    """Images `first` to `first` + 7 of x (B, C, H, W) into the middle of a frame of zeros."""
    pixels = shape.maps * shape.height * shape.width
    for c in range(shape.maps):
        for r in range(shape.height):
            i = first * pixels + (c * shape.height + r) * shape.width
            j = (c * shape.rows + r + shape.padding) * shape.columns + shape.padding
            _into_lanes(x, i, pixels, batch - first, shape.width, out, j * LANES)


@njit(**OPTIONS)
def _into_lanes(x, start, step, images, width, out, out_start):
    """Eight rows of x, step apart, side by side: out (width, 8), 0 from lane `images` on."""
    whole = width // LANES * LANES if images >= LANES else 0
    for s in range(0, whole, LANES):
        transpose(x, start + s, step, out, out_start + s * LANES, LANES)
    for s in range(whole, width):
        for lane in range(LANES):
            value = x[start + s + lane * step] if lane < images else np.float32(0)
            out[out_start + s * LANES + lane] = value


@njit(**OPTIONS)
def _out_of_lanes(x, images, width, out, start, step):
    """The reverse: x (width, 8) -> rows of out, step apart."""
    whole = width // LANES * LANES if images >= LANES else 0
    for s in range(0, whole, LANES):
        transpose(x, s * LANES, LANES, out, start + s, step)
    for s in range(whole, width):
        for lane in range(min(images, LANES)):
            out[start + s + lane * step] = x[s * LANES + lane]


@njit(**OPTIONS)
def _convolve_two_rows(
    x, x_start, rows, columns, zeros, end, row, weight, sources, first, last, bias, count, out
):
    """One output map at two neighbouring rows: out (2, count, 8), count a multiple of 5.

    Five columns of both rows stay in registers over all connections. Left out are kernel rows
    that would read above or below the `rows` of x, and pixels of zeros: x has them before column
    `zeros` and from column `end` on.
    """
    low = max(0, -row)
    high = min(K, rows - 1 - row)
    for q in range(0, count, K):
        tile = filled(bias)
        after_zeros = q == 0 and zeros >= K - 1
        before_zeros = q + K - 1 >= end
        for p in range(first, last):
            corner = x_start + ((sources[p] * rows + row) * columns + q) * LANES
            for ky in range(low, high):
                i = corner + ky * columns * LANES
                j = i + columns * LANES
                taps = (p * K + ky) * K
                if after_zeros:
                    tile = convolve_after_zeros(tile, x, i, j, weight, taps)
                elif before_zeros:
                    tile = convolve_before_zeros(tile, x, i, j, weight, taps)
                else:
                    tile = convolve(tile, x, i, j, weight, taps)
        for n in range(K):
            store(out, (q + n) * LANES, tile[n])
            store(out, (count + q + n) * LANES, tile[K + n])


@njit(**OPTIONS)
def _squash_and_pool(z, count, pooled, slope, start, y, y_start):
    """Two rows of sums z (2, count, 8) -> one row of y, and dy/dz as slope (2, 2 pooled, 8)."""
    one = splat(np.float32(1))
    minus = splat(np.float32(-1))
    quarter = splat(np.float32(0.25))
    below = 2 * pooled * LANES
    # Apart from what follows: nothing waits for a neighbour, so that many are under way at once.
    for i in range(0, 2 * count * LANES, LANES):
        store(z, i, tanh(load(z, i)))
    for s in range(pooled):
        i = 2 * s * LANES
        j = i + count * LANES
        a0 = load(z, i)
        a1 = load(z, i + LANES)
        b0 = load(z, j)
        b1 = load(z, j + LANES)
        out = tanh(mul(quarter, add(add(a0, a1), add(b0, b1))))
        store(y, y_start + s * LANES, out)
        scale = mul(quarter, fma(mul(minus, out), out, one))
        j = start + i
        store(slope, j, mul(scale, fma(mul(minus, a0), a0, one)))
        store(slope, j + LANES, mul(scale, fma(mul(minus, a1), a1, one)))
        store(slope, j + below, mul(scale, fma(mul(minus, b0), b0, one)))
        store(slope, j + below + LANES, mul(scale, fma(mul(minus, b1), b1, one)))


@njit(**OPTIONS)
def _forward_group(
    x, x_start, shape, table, weight, bias, z, slope, slope_start, y, y_start, y_rows, y_columns
):
    """Framed x -> slope (M, 2R, 2S, 8) and y, (M, R, S, 8) in maps of y_rows x y_columns pixels."""
    for m in range(shape.outputs):
        for r in range(shape.pooled_rows):
            _convolve_two_rows(
                x,
                x_start,
                shape.rows,
                shape.columns,
                shape.padding,
                shape.padding + shape.width,
                2 * r,
                weight,
                table.sources,
                table.starts[m],
                table.starts[m + 1],
                bias[m],
                shape.tiled,
                z,
            )
            i = slope_start + (m * shape.pooled_rows + r) * 4 * shape.pooled * LANES
            j = y_start + (m * y_rows + r) * y_columns * LANES
            _squash_and_pool(z, shape.tiled, shape.pooled, slope, i, y, j)


# --- backward, one group ------------------------------------------------------------------------


@njit(**OPTIONS)
def _gradient_of_sums(grad, slope, row, slope_row, pooled, d, top, bottom, db):
    """One pooled row of grad (R, S, 8) -> two rows of d, at `top` and at `bottom`.

    Returns:
        db with this row's gradients added.
    """
    for s in range(pooled):
        g = load(grad, row + s * LANES)
        i = slope_row + 2 * s * LANES
        j = i + 2 * pooled * LANES
        k = 2 * s * LANES
        for side in range(0, 2 * LANES, LANES):
            upper = mul(g, load(slope, i + side))
            lower = mul(g, load(slope, j + side))
            store(d, top + k + side, upper)
            store(d, bottom + k + side, lower)
            db = add(db, add(upper, lower))
    return db


@njit(**OPTIONS)
def _weight_gradient(x, x_start, columns, d, d_start, d_columns, height, width, out, out_start):
    """One connection: out (25, 8) += the products of its input map and its map's gradient.

    Five taps, for even and for odd columns apart, stay in registers.
    """
    for ky in range(K):
        tile = filled(np.float32(0))
        for r in range(height):
            i = x_start + (r + ky) * columns * LANES
            j = d_start + r * d_columns * LANES
            for s in range(0, width * LANES, 2 * LANES):
                tile = correlate(tile, x, i + s, d, j + s)
        for tap in range(K):
            k = out_start + (ky * K + tap) * LANES
            store(out, k, add(load(out, k), add(tile[tap], tile[K + tap])))


@njit(**OPTIONS)
def _input_gradient(d, shape, table, turned, z, dx, dx_start):
    """The gradient at one group's input, dx (C, H, W, 8): the forward loop over turned kernels."""
    row = shape.width * LANES
    for c in range(shape.maps):
        for r in range(0, shape.height, 2):
            _convolve_two_rows(
                d,
                0,
                shape.gradient_rows,
                shape.gradient_columns,
                shape.left,
                shape.left + 2 * shape.pooled,
                1 + r - shape.left,
                turned,
                table.fed,
                table.source_starts[c],
                table.source_starts[c + 1],
                np.float32(0),
                shape.gradient_tiled,
                z,
            )
            i = dx_start + (c * shape.height + r) * row
            dx[i : i + row] = z[:row]
            if r + 1 < shape.height:
                j = shape.gradient_tiled * LANES
                dx[i + row : i + 2 * row] = z[j : j + row]


@njit(**OPTIONS)
def _backward_group(
    grad, start, x, x_start, shape, table, slope, slope_start, d, dw, dw_start, db, db_start
):
    """Gradients of one group: d at the sums; dw (P, 25, 8) and db (M, 8) are added to."""
    for m in range(shape.outputs):
        i = db_start + m * LANES
        total = load(db, i)
        for r in range(shape.pooled_rows):
            top = (m * shape.gradient_rows + 1 + 2 * r) * shape.gradient_columns + shape.left
            row = m * shape.pooled_rows + r
            total = _gradient_of_sums(
                grad,
                slope,
                start + row * shape.pooled * LANES,
                slope_start + row * 4 * shape.pooled * LANES,
                shape.pooled,
                d,
                top * LANES,
                (top + shape.gradient_columns) * LANES,
                total,
            )
        store(db, i, total)
    for p in range(len(table.sources)):
        i = table.outputs[p] * shape.gradient_rows + 1
        _weight_gradient(
            x,
            x_start + table.sources[p] * shape.rows * shape.columns * LANES,
            shape.columns,
            d,
            (i * shape.gradient_columns + shape.left) * LANES,
            shape.gradient_columns,
            2 * shape.pooled_rows,
            2 * shape.pooled,
            dw,
            dw_start + p * K * K * LANES,
        )


@njit(**OPTIONS)
def _turn_round(weight, by_source):
    """The kernels (P, 5, 5) in the order of their input maps, each turned by 180 degrees."""
    out = np.empty(len(weight), np.float32)
    for n in range(len(by_source)):
        for tap in range(K * K):
            out[n * K * K + tap] = weight[by_source[n] * K * K + K * K - 1 - tap]
    return out


@njit(**OPTIONS)
def _add_up(parts, threads, out):
    """Parts (T, N, 8) -> out (N,), in one order: thread by thread, lane by lane."""
    for i in range(len(out)):
        total = np.float32(0)
        for t in range(threads):
            start = (t * len(out) + i) * LANES
            for lane in range(LANES):
                total += parts[start + lane]
        out[i] = total


@njit(**OPTIONS)
def _framed_gradient(shape):
    """Zeros for one group's d, the gradient at the sums in its frame."""
    pixels = shape.gradient_rows * shape.gradient_columns
    return np.zeros(shape.outputs * pixels * LANES, np.float32)


# --- one block, all groups ----------------------------------------------------------------------


@njit(parallel=True, **OPTIONS)
def _forward(x, groups, shape, table, weight, bias, threads, slope, y):
    """X (G, C, H, W, 8) -> slope (G, M, 2R, 2S, 8) and y (G, M, R, S, 8)."""
    in_floats = shape.maps * shape.height * shape.width * LANES
    out_floats = shape.slopes // 4
    for t in prange(threads):
        framed = np.zeros(shape.framed, np.float32)
        z = np.empty(2 * shape.tiled * LANES, np.float32)
        for g in range(t * groups // threads, (t + 1) * groups // threads):
            _frame_lanes(x, g * in_floats, shape, framed)
            _forward_group(
                framed,
                0,
                shape,
                table,
                weight,
                bias,
                z,
                slope,
                g * shape.slopes,
                y,
                g * out_floats,
                shape.pooled_rows,
                shape.pooled,
            )


@njit(parallel=True, **OPTIONS)
def _backward(grad, x, groups, shape, table, weight, slope, threads, want_input, dx, dw, db):
    """Gradients at x, like x, and at the parameters: dw (P, 25) and db (M,).

    Every thread adds up its own groups in order, so that the same number of threads gives the same
    bits.
    """
    in_floats = shape.maps * shape.height * shape.width * LANES
    turned = _turn_round(weight, table.by_source)
    dw_parts = np.zeros(threads * len(dw) * LANES, np.float32)
    db_parts = np.zeros(threads * len(db) * LANES, np.float32)
    for t in prange(threads):
        framed = np.zeros(shape.framed, np.float32)
        d = _framed_gradient(shape)
        z = np.empty(2 * shape.gradient_tiled * LANES, np.float32)
        for g in range(t * groups // threads, (t + 1) * groups // threads):
            _frame_lanes(x, g * in_floats, shape, framed)
            _backward_group(
                grad,
                g * shape.slopes // 4,
                framed,
                0,
                shape,
                table,
                slope,
                g * shape.slopes,
                d,
                dw_parts,
                t * len(dw) * LANES,
                db_parts,
                t * len(db) * LANES,
            )
            if want_input:
                _input_gradient(d, shape, table, turned, z, dx, g * in_floats)
    _add_up(dw_parts, threads, dw)
    _add_up(db_parts, threads, db)


# --- two blocks in a row, all groups ------------------------------------------------------------


@njit(parallel=True, **OPTIONS)
def _forward_two(
    x, batch, shape, table, weight, bias, shape2, table2, weight2, bias2, threads, state, y
):
    """Images x (B, C, H, W) -> y (B, M2, R2, S2), and what the gradient needs of each group.

    State (G, ...) is the slope of the first block, the framed input and the slope of the second.
    """
    groups = -(-batch // LANES)
    floats = shape.slopes + shape2.framed + shape2.slopes
    inside = (shape2.padding * shape2.columns + shape2.padding) * LANES
    features = shape2.slopes // 4 // LANES
    for t in prange(threads):
        framed = np.zeros(shape.framed, np.float32)
        z = np.empty(2 * max(shape.tiled, shape2.tiled) * LANES, np.float32)
        out = np.empty(features * LANES, np.float32)
        for g in range(t * groups // threads, (t + 1) * groups // threads):
            _frame_images(x, g * LANES, batch, shape, framed)
            start = g * floats
            middle = start + shape.slopes
            state[middle : middle + shape2.framed] = 0
            _forward_group(
                framed,
                0,
                shape,
                table,
                weight,
                bias,
                z,
                state,
                start,
                state,
                middle + inside,
                shape2.rows,
                shape2.columns,
            )
            _forward_group(
                state,
                middle,
                shape2,
                table2,
                weight2,
                bias2,
                z,
                state,
                middle + shape2.framed,
                out,
                0,
                shape2.pooled_rows,
                shape2.pooled,
            )
            first = g * LANES
            _out_of_lanes(out, batch - first, features, y, first * features, features)


@njit(parallel=True, **OPTIONS)
def _backward_two(
    grad,
    x,
    batch,
    shape,
    table,
    shape2,
    table2,
    weight2,
    state,
    threads,
    dw,
    db,
    dw2,
    db2,
):
    """Gradients at the parameters of both blocks: (P, 25), (M,), (P2, 25) and (M2,)."""
    groups = -(-batch // LANES)
    floats = shape.slopes + shape2.framed + shape2.slopes
    features = shape2.slopes // 4 // LANES
    turned = _turn_round(weight2, table2.by_source)
    dw_parts = np.zeros(threads * len(dw) * LANES, np.float32)
    db_parts = np.zeros(threads * len(db) * LANES, np.float32)
    dw2_parts = np.zeros(threads * len(dw2) * LANES, np.float32)
    db2_parts = np.zeros(threads * len(db2) * LANES, np.float32)
    for t in prange(threads):
        framed = np.zeros(shape.framed, np.float32)
        d = _framed_gradient(shape)
        d2 = _framed_gradient(shape2)
        z = np.empty(2 * shape2.gradient_tiled * LANES, np.float32)
        out_grad = np.zeros(features * LANES, np.float32)
        middle_grad = np.empty(shape.slopes // 4, np.float32)
        # Backwards: the last groups of the forward pass are still in the cache.
        for g in range((t + 1) * groups // threads - 1, t * groups // threads - 1, -1):
            first = g * LANES
            _into_lanes(grad, first * features, features, batch - first, features, out_grad, 0)
            start = g * floats
            middle = start + shape.slopes
            _backward_group(
                out_grad,
                0,
                state,
                middle,
                shape2,
                table2,
                state,
                middle + shape2.framed,
                d2,
                dw2_parts,
                t * len(dw2) * LANES,
                db2_parts,
                t * len(db2) * LANES,
            )
            _input_gradient(d2, shape2, table2, turned, z, middle_grad, 0)
            _frame_images(x, g * LANES, batch, shape, framed)
            _backward_group(
                middle_grad,
                0,
                framed,
                0,
                shape,
                table,
                state,
                start,
                d,
                dw_parts,
                t * len(dw) * LANES,
                db_parts,
                t * len(db) * LANES,
            )
    _add_up(dw_parts, threads, dw)
    _add_up(db_parts, threads, db)
    _add_up(dw2_parts, threads, dw2)
    _add_up(db2_parts, threads, db2)


# --- launchers ----------------------------------------------------------------------------------


def _threads(groups: int) -> int:
    """As many as torch uses, if Numba started that many and there is work for them."""
    threads: int = max(1, min(torch.get_num_threads(), MOST_THREADS, groups))
    numba.set_num_threads(threads)
    return threads


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
    """
    groups, maps, height, width, _ = x.shape
    shape = _shape(maps, height, width, padding, len(bias))
    table = _table(connections.numpy().tobytes(), len(bias), maps)
    y = x.new_empty(groups, len(bias), shape.pooled_rows, shape.pooled, LANES)
    slope = x.new_empty(groups, len(bias), 2 * shape.pooled_rows, 2 * shape.pooled, LANES)
    arrays = (_flat(weight), _flat(bias))
    _forward(_flat(x), groups, shape, table, *arrays, _threads(groups), _flat(slope), _flat(y))
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
    """Gradients of `forward`'s first result; arguments as there.

    Returns:
        At x (empty unless `want_input`), weight and bias.
    """
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
        _table(connections.numpy().tobytes(), outputs, maps),
        _flat(weight),
        _flat(slope),
        _threads(groups),
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
    maps = x.shape[1]
    shape = _shape(*x.shape[1:], first.padding, len(first.bias))
    middle = (len(first.bias), shape.pooled_rows, shape.pooled)
    return (
        shape,
        _table(first.connections.numpy().tobytes(), len(first.bias), maps),
        _shape(*middle, second.padding, len(second.bias)),
        _table(second.connections.numpy().tobytes(), len(second.bias), len(first.bias)),
    )


def forward_two(x: Tensor, first: Block, second: Block) -> tuple[Tensor, Tensor]:
    """Runs two blocks in a row: one start of the threads, and a group's maps stay in the cache.

    Args:
        x: (B, C, H, W) float32.
        first: the block that reads x.
        second: the block that reads the first one's maps.

    Returns:
        y (B, M, R, S) of the second, and what `backward_two` needs.
    """
    shape, table, shape2, table2 = _two(x, first, second)
    groups = -(-len(x) // LANES)
    y = x.new_empty(len(x), shape2.outputs, shape2.pooled_rows, shape2.pooled)
    # One piece: so malloc keeps the memory, and the next iteration finds its pages mapped.
    state = x.new_empty(groups * (shape.slopes + shape2.framed + shape2.slopes))
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
        _threads(groups),
        _flat(state),
        _flat(y),
    )
    return y, state


def backward_two(
    grad: Tensor, x: Tensor, first: Block, second: Block, state: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of `forward_two`'s first result; arguments as there.

    Returns:
        At the weight and the bias of the first, and of the second block.
    """
    gradients = [
        torch.empty_like(parameter, memory_format=torch.contiguous_format)
        for parameter in (first.weight, first.bias, second.weight, second.bias)
    ]
    _backward_two(
        _flat(grad),
        _flat(x),
        len(x),
        *_two(x, first, second),
        _flat(second.weight),
        _flat(state),
        _threads(-(-len(x) // LANES)),
        *map(_flat, gradients),
    )
    dw, db, dw2, db2 = gradients
    return dw, db, dw2, db2
