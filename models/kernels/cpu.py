"""The fused block on the CPU: compiled by Numba, eight images to a vector, groups over threads.

All images are in the layout of `lanes.py`. Numba writes the machine code to `__pycache__`, so that
only the first run of a machine waits for it. One file, since Numba's cache watches one file.

Shapes: B images, G groups, C input maps, M output maps, P connections, H W input pixels, R S
pooled pixels (so 2R 2S convolved ones), T threads. Arrays are flat inside the kernels; comments
give shapes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from llvmlite import ir
from numba import njit, prange, types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic, models, register_model
from torch import Tensor

from models.kernels.lanes import LANES
from models.kernels.threads import use_threads

K = 5  # height and width of a kernel
OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}
# For what runs once a row of pixels: handing over the arguments takes 0.1 us.
INLINED = OPTIONS | {"forceinline": True}

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


TILE = 10  # sums that stay in registers, enough to keep the multipliers busy
WIDTHS = (5, 7)  # columns of a tile of the convolutions, which has two rows


def _load(context: Any, builder: Any, array_type: Any, array: Any, index: Any, step: int) -> Any:
    index = builder.add(index, ir.Constant(index.type, step))
    return builder.load(_address(context, builder, array_type, array, index), align=4)


def _filled(count: int) -> Any:
    """The intrinsic that makes a tile of `count` vectors."""

    @intrinsic
    def filled(typing: Any, value: Any) -> Any:
        kind = types.UniTuple(VECTOR, count)

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return context.make_tuple(builder, kind, [_splat(builder, args[0])] * count)

        return kind(types.float32), generate

    return filled


# Tiles that hold a float32 value everywhere.
filled = _filled(TILE)
filled_narrow, filled_wide = (_filled(2 * width) for width in WIDTHS)


@intrinsic
def store_tile(typing: Any, tile: Any, out: Any, upper: Any, lower: Any) -> Any:
    """Writes a tile's two rows, from out[upper] and from out[lower] on."""
    _require_contiguous(out)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        out_type = signature.args[1]
        tile, out, *starts = args
        sums = cgutils.unpack_tuple(builder, tile)
        width = len(sums) // 2
        for n, value in enumerate(sums):
            row, column = divmod(n, width)
            index = builder.add(starts[row], ir.Constant(starts[row].type, column * LANES))
            place = _address(context, builder, out_type, out, index)
            builder.store(value, place, align=4)
        return context.get_dummy_value()

    return types.void(tile, out, types.intp, types.intp), generate


def _convolution(*, after_zeros: bool = False, before_zeros: bool = False) -> Any:
    """The intrinsic that adds one row of a kernel to a tile of two rows of W columns.

    A tile reads W + 4 pixels of both its rows. Left out are the first four, if they come after
    zeros, and those from W on, if they come before zeros.
    """

    @intrinsic
    def convolve(
        typing: Any, tile: Any, x: Any, upper: Any, lower: Any, weight: Any, taps: Any
    ) -> Any:
        _require_contiguous(x)
        width = len(tile) // 2
        first = K - 1 if after_zeros else 0
        last = width if before_zeros else width + K - 1

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            _, x_type, *_, weight_type, _ = signature.args
            tile, x, upper, lower, weight, taps = args
            sums = cgutils.unpack_tuple(builder, tile)
            data = context.make_array(weight_type)(context, builder, weight).data
            weights = []
            for tap in range(K):
                index = builder.add(taps, ir.Constant(taps.type, tap))
                weights.append(_splat(builder, builder.load(builder.gep(data, [index]))))
            # Every pixel is loaded once for all the sums that it belongs to. The rows take turns,
            # so that a sum is ready when its next product is.
            for column in range(first, last):
                for row, start in enumerate((upper, lower)):
                    pixel = _load(context, builder, x_type, x, start, column * LANES)
                    for tap in range(max(0, column - width + 1), min(K, column + 1)):
                        n = row * width + column - tap
                        sums[n] = _llvm(builder, "fmuladd", weights[tap], pixel, sums[n])
            return context.make_tuple(builder, signature.return_type, sums)

        return tile(tile, x, types.intp, types.intp, weight, types.intp), generate

    return convolve


# One row of a kernel, weight[taps : taps + 5], and the columns of two rows, which begin at
# x[upper] and x[lower].
convolve = _convolution()
convolve_after_zeros = _convolution(after_zeros=True)
convolve_before_zeros = _convolution(before_zeros=True)


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


@intrinsic
def add_outer(typing: Any, tile: Any, x: Any, i: Any, factors: Any, j: Any, step: Any) -> Any:
    """Adds x[i : i + 8] times factors[j + n step] to vector n of a tile."""
    _require_contiguous(x)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, x_type, _, factors_type, _, _ = signature.args
        tile, x, i, factors, j, step = args
        sums = cgutils.unpack_tuple(builder, tile)
        vector = _load(context, builder, x_type, x, i, 0)
        data = context.make_array(factors_type)(context, builder, factors).data
        for n in range(TILE):
            index = builder.add(j, builder.mul(step, ir.Constant(step.type, n)))
            factor = _splat(builder, builder.load(builder.gep(data, [index])))
            sums[n] = _llvm(builder, "fmuladd", factor, vector, sums[n])
        return context.make_tuple(builder, signature.return_type, sums)

    return tile(tile, x, types.intp, factors, types.intp, types.intp), generate


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
    tile: int
    """Columns of a tile of sums."""
    tiled: int
    """Columns of sums, in whole tiles."""
    rows: int
    """Of the frame of zeros that the input is put into."""
    columns: int
    left: int
    """Columns of zeros before the gradient at the sums, for the convolution back to the input."""
    gradient_tile: int
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


def _tiles(columns: int) -> tuple[int, int]:
    """The width of tiles that cover `columns` with the least waste, and how many they cover."""
    covered, width = min((-(-columns // width) * width, width) for width in WIDTHS)
    return width, covered


@lru_cache(maxsize=64)
def _shape(maps: int, height: int, width: int, padding: int, outputs: int) -> Shape:
    pooled_rows, pooled = ((size + 2 * padding - K + 1) // 2 for size in (height, width))
    tile, tiled = _tiles(2 * pooled)
    rows, columns = height + 2 * padding, max(width + 2 * padding, tiled + K - 1)
    left = K - 1 - padding
    gradient_tile, gradient_tiled = _tiles(width)
    return Shape(
        maps=maps,
        height=height,
        width=width,
        padding=padding,
        outputs=outputs,
        pooled_rows=pooled_rows,
        pooled=pooled,
        tile=tile,
        tiled=tiled,
        rows=rows,
        columns=columns,
        left=left,
        gradient_tile=gradient_tile,
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


@njit(**INLINED)
def _convolve_two_rows(
    x, x_start, rows, columns, zeros, end, row, weight, sources, first, last, empty, count, out
):
    """One output map at two neighbouring rows: out (2, count, 8), in whole tiles like `empty`.

    A tile stays in registers over all connections. Left out are kernel rows that would read above
    or below the `rows` of x, and pixels of zeros: x has them before column `zeros` and from column
    `end` on.
    """
    width = len(empty) // 2
    low = max(0, -row)
    high = min(K, rows - 1 - row)
    for q in range(0, count, width):
        tile = empty
        after_zeros = q == 0 and zeros >= K - 1
        before_zeros = q + width >= end
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
        store_tile(tile, out, q * LANES, (count + q) * LANES)


@njit(**INLINED)
def _convolve(
    x, start, rows, columns, zeros, end, row, weight, sources, first, last, bias, tile, count, out
):
    """`_convolve_two_rows` in tiles of `tile` columns that begin with the bias."""
    if tile == WIDTHS[0]:
        empty = filled_narrow(bias)
        _convolve_two_rows(
            x,
            start,
            rows,
            columns,
            zeros,
            end,
            row,
            weight,
            sources,
            first,
            last,
            empty,
            count,
            out,
        )
    else:
        wide = filled_wide(bias)
        _convolve_two_rows(
            x, start, rows, columns, zeros, end, row, weight, sources, first, last, wide, count, out
        )


@njit(**INLINED)
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
            _convolve(
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
                shape.tile,
                shape.tiled,
                z,
            )
            i = slope_start + (m * shape.pooled_rows + r) * 4 * shape.pooled * LANES
            j = y_start + (m * y_rows + r) * y_columns * LANES
            _squash_and_pool(z, shape.tiled, shape.pooled, slope, i, y, j)


# --- backward, one group ------------------------------------------------------------------------


@njit(**INLINED)
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


@njit(**INLINED)
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
            _convolve(
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
                shape.gradient_tile,
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


# --- dense layers, one group --------------------------------------------------------------------


@njit(**OPTIONS)
def _dense(x, inputs, weight, bias, squash, out):
    """Sums x (inputs, 8) by weight (outputs, inputs), plus bias: out (outputs, 8)."""
    outputs = len(bias)
    for tile_start in range(0, outputs, TILE):
        o = min(tile_start, outputs - TILE)  # the last tile may do some outputs again
        tile = filled(np.float32(0))
        for i in range(inputs):
            tile = add_outer(tile, x, i * LANES, weight, o * inputs + i, inputs)
        for n in range(TILE):
            z = add(tile[n], splat(bias[o + n]))
            store(out, (o + n) * LANES, tanh(z) if squash else z)


@njit(**OPTIONS)
def _dense_input_gradient(d, d_start, outputs, weight, inputs, dx):
    """Gradient d (outputs, 8) at a layer's sums -> dx (inputs, 8) at its input."""
    for tile_start in range(0, inputs, TILE):
        i = min(tile_start, inputs - TILE)
        tile = filled(np.float32(0))
        for o in range(outputs):
            tile = add_outer(tile, d, d_start + o * LANES, weight, o * inputs + i, 1)
        for n in range(TILE):
            store(dx, (i + n) * LANES, tile[n])


@njit(**OPTIONS)
def _through_tanh(dy, y, count, d, d_start):
    """Gradient dy (count, 8) at y = tanh(z) -> d at z."""
    one = splat(np.float32(1))
    minus = splat(np.float32(-1))
    for i in range(0, count * LANES, LANES):
        v = load(y, i)
        store(d, d_start + i, mul(load(dy, i), fma(mul(minus, v), v, one)))


@njit(**OPTIONS)
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


@njit(**OPTIONS)
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


@njit(**OPTIONS)
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


@njit(**OPTIONS)
def _pick_images(x, index, first, images, pixels, unit, out):
    """Images index[first], index[first + 1], ... of x (N, pixels), in units: out (8, pixels)."""
    for lane in range(min(images, LANES)):
        start = index[first + lane] * pixels
        # Slices, so that the compiler knows the index to be above 0 and uses vectors.
        image, row = x[start : start + pixels], out[lane * pixels : (lane + 1) * pixels]
        for s in range(pixels):
            row[s] = np.float32(image[s]) / unit


@njit(parallel=True, **OPTIONS)
def _lenet5_gradient(
    x, unit, labels, index, share, shape, table, shape2, table2, net, threads, gradients, losses
):
    """Cross-entropies of the images x[index] / unit, and share times the gradients of their sum.

    A group of eight images goes through the whole net and back before the next one begins, so that
    all of it stays in the cache.
    """
    batch = len(index)
    groups = -(-batch // LANES)
    pixels = shape.maps * shape.height * shape.width
    maps = shape2.slopes // 4 // LANES
    units, units2, classes = len(net.c5_bias), len(net.f6_bias), len(net.output_bias)
    # For the gradients at the dense weights: each layer's input, image by image ...
    rows = np.empty(batch * maps, np.float32)
    rows5 = np.empty(batch * units, np.float32)
    rows6 = np.empty(batch * units2, np.float32)
    # ... and the gradient at its sums, (G, outputs, 8).
    d5 = np.empty(groups * units * LANES, np.float32)
    d6 = np.empty(groups * units2 * LANES, np.float32)
    d7 = np.empty(groups * classes * LANES, np.float32)
    turned = _turn_round(net.c3, table2.by_source)
    dw_parts = np.zeros(threads * len(net.c1) * LANES, np.float32)
    db_parts = np.zeros(threads * len(net.c1_bias) * LANES, np.float32)
    dw2_parts = np.zeros(threads * len(net.c3) * LANES, np.float32)
    db2_parts = np.zeros(threads * len(net.c3_bias) * LANES, np.float32)
    for t in prange(threads):
        framed = np.zeros(shape.framed, np.float32)
        slope = np.empty(shape.slopes, np.float32)
        framed2 = np.zeros(shape2.framed, np.float32)
        slope2 = np.empty(shape2.slopes, np.float32)
        d = _framed_gradient(shape)
        d2 = _framed_gradient(shape2)
        z = np.empty(2 * max(shape.tiled, shape2.tiled, shape2.gradient_tiled) * LANES, np.float32)
        middle_grad = np.empty(shape.slopes // 4, np.float32)
        y4 = np.empty(maps * LANES, np.float32)
        dy4 = np.empty(maps * LANES, np.float32)
        y5 = np.empty(units * LANES, np.float32)
        dy5 = np.empty(units * LANES, np.float32)
        y6 = np.empty(units2 * LANES, np.float32)
        dy6 = np.empty(units2 * LANES, np.float32)
        logits = np.empty(classes * LANES, np.float32)
        picked = np.empty(pixels * LANES, np.float32)
        inside = (shape2.padding * shape2.columns + shape2.padding) * LANES
        for g in range(t * groups // threads, (t + 1) * groups // threads):
            first = g * LANES
            images = batch - first
            _pick_images(x, index, first, images, pixels, unit, picked)
            _frame_images(picked, 0, images, shape, framed)
            _forward_group(
                framed,
                0,
                shape,
                table,
                net.c1,
                net.c1_bias,
                z,
                slope,
                0,
                framed2,
                inside,
                shape2.rows,
                shape2.columns,
            )
            _forward_group(
                framed2,
                0,
                shape2,
                table2,
                net.c3,
                net.c3_bias,
                z,
                slope2,
                0,
                y4,
                0,
                shape2.pooled_rows,
                shape2.pooled,
            )
            _dense(y4, maps, net.c5, net.c5_bias, True, y5)
            _dense(y5, units, net.f6, net.f6_bias, True, y6)
            _dense(y6, units2, net.output, net.output_bias, False, logits)
            at7 = g * classes * LANES
            at6 = g * units2 * LANES
            at5 = g * units * LANES
            _cross_entropy(logits, classes, images, labels, index, first, share, d7, at7, losses)
            _dense_input_gradient(d7, at7, classes, net.output, units2, dy6)
            _through_tanh(dy6, y6, units2, d6, at6)
            _dense_input_gradient(d6, at6, units2, net.f6, units, dy5)
            _through_tanh(dy5, y5, units, d5, at5)
            _dense_input_gradient(d5, at5, units, net.c5, maps, dy4)
            _out_of_lanes(y4, images, maps, rows, first * maps, maps)
            _out_of_lanes(y5, images, units, rows5, first * units, units)
            _out_of_lanes(y6, images, units2, rows6, first * units2, units2)
            _backward_group(
                dy4,
                0,
                framed2,
                0,
                shape2,
                table2,
                slope2,
                0,
                d2,
                dw2_parts,
                t * len(net.c3) * LANES,
                db2_parts,
                t * len(net.c3_bias) * LANES,
            )
            _input_gradient(d2, shape2, table2, turned, z, middle_grad, 0)
            _backward_group(
                middle_grad,
                0,
                framed,
                0,
                shape,
                table,
                slope,
                0,
                d,
                dw_parts,
                t * len(net.c1) * LANES,
                db_parts,
                t * len(net.c1_bias) * LANES,
            )
    # Columns over threads: no two write the same, and the order of the sums is the batch's.
    for t in prange(threads):
        columns = -(-maps // LANES)
        begin = t * columns // threads * LANES
        end = min(maps, (t + 1) * columns // threads * LANES)
        _dense_gradient(d5, rows, batch, units, maps, begin, end, gradients.c5)
        if t == 0:
            _add_up(dw_parts, threads, gradients.c1)
            _add_up(db_parts, threads, gradients.c1_bias)
            _add_up(dw2_parts, threads, gradients.c3)
            _add_up(db2_parts, threads, gradients.c3_bias)
        if t == threads - 1:
            _dense_gradient(d6, rows5, batch, units2, units, 0, units, gradients.f6)
            _dense_gradient(d7, rows6, batch, classes, units2, 0, units2, gradients.output)
            _dense_bias_gradient(d5, groups, units, gradients.c5_bias)
            _dense_bias_gradient(d6, groups, units2, gradients.f6_bias)
            _dense_bias_gradient(d7, groups, classes, gradients.output_bias)


@njit(**OPTIONS)
def _step(weight, gradient, rate):
    for i in range(len(weight)):
        weight[i] -= rate * gradient[i]


@njit(**OPTIONS)
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
    """
    groups, maps, height, width, _ = x.shape
    shape = _shape(maps, height, width, padding, len(bias))
    table = _table(connections.numpy().tobytes(), len(bias), maps)
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
        use_threads(groups),
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
        use_threads(-(-len(x) // LANES)),
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
    """

    def __init__(
        self,
        first: Block,
        second: Block,
        parameters: Sequence[Tensor],
        gradients: Sequence[Tensor],
    ) -> None:
        self._tables = _two(torch.empty(0, 1, 28, 28), first, second)
        self._parameters = Parameters(*map(_flat, parameters))
        self._gradients = Parameters(*map(_flat, gradients))

    def __call__(self, x: Tensor, labels: Tensor, share: float) -> Tensor:
        """Writes the gradients of share times the sum of the cross-entropies.

        Args:
            x: (B, 1, 28, 28) float32.
            labels: (B,) int64.
            share: weight of each image.

        Returns:
            The cross-entropy of each image (B,).
        """
        losses = np.empty(len(x), np.float32)
        _lenet5_gradient(
            _flat(x),
            np.float32(1),
            labels.numpy(),
            np.arange(len(x)),
            np.float32(share),
            *self._tables,
            self._parameters,
            use_threads(-(-len(x) // LANES)),
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
        """
        losses = np.empty(len(sizes), np.float32)
        _lenet5_descent(
            _flat(images),
            np.float32(255),
            labels.numpy(),
            order.numpy(),
            sizes,
            shares.float().numpy(),
            rates.float().numpy(),
            *self._tables,
            self._parameters,
            use_threads(-(-int(sizes.max(initial=0)) // LANES)),
            self._gradients,
            losses,
        )
        return torch.from_numpy(losses)
