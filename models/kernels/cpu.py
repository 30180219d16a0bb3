"""The fused block on the CPU: compiled by Numba, eight images to a vector, groups over threads.

All images are in the layout of `lanes.py`. Numba writes the machine code to `__pycache__`, so that
only the first run of a machine waits for it. One file, since Numba's cache watches one file.

Shapes: G groups, C input maps, M output maps, P connections, H W input pixels, R S pooled pixels
(so 2R 2S convolved ones), T threads. Arrays are flat inside the kernels; the comments give shapes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

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


@intrinsic
def convolve(typing: Any, tile: Any, x: Any, upper: Any, lower: Any, weight: Any, taps: Any) -> Any:
    """Adds one row of a kernel, weight[taps : taps + 5], to five columns of two rows.

    The rows read nine vectors each from x[upper] and x[lower] on; every one is loaded once.
    """
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
            for column in range(2 * K - 1):
                pixel = _load(context, builder, x_type, x, start, column * LANES)
                for tap in range(max(0, column - K + 1), min(K, column + 1)):
                    n = row * K + column - tap
                    sums[n] = _llvm(builder, "fmuladd", weights[tap], pixel, sums[n])
        return context.make_tuple(builder, signature.return_type, sums)

    return tile(tile, x, types.intp, types.intp, weight, types.intp), generate


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

    With e = exp(2|x|) - 1, which keeps its digits near 0, it is e / (e + 2) with the sign of x.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        (x,) = args
        size = _llvm(builder, "fabs", x)
        saturated = builder.fcmp_ordered(">", size, _constant(SATURATED))
        size = builder.select(saturated, _constant(SATURATED), size)  # NaN stays NaN
        # exp(2|x|) = 2^n 2^f, n the nearest integer.
        scale = _constant(2 / np.log(2))
        shifted = _llvm(builder, "fmuladd", size, scale, _constant(ROUND))
        n = builder.fsub(shifted, _constant(ROUND))
        f = _llvm(builder, "fmuladd", size, scale, builder.fneg(n))
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
        ratio = builder.fdiv(e, builder.fadd(e, _constant(2)))
        return _llvm(builder, "copysign", ratio, x)

    return VECTOR(VECTOR), generate


# --- forward ------------------------------------------------------------------------------------


@njit(**OPTIONS)
def _copy_padded(x, start, maps, height, width, top, left, rows, columns, out):
    """One group of images (maps, height, width, 8) into the middle of (maps, rows, columns, 8)."""
    for c in range(maps):
        for r in range(height):
            source = start + (c * height + r) * width * LANES
            target = ((c * rows + r + top) * columns + left) * LANES
            out[target : target + width * LANES] = x[source : source + width * LANES]


@njit(**OPTIONS)
def _convolve_two_rows(x, rows, columns, row, weight, sources, first, last, bias, count, out):
    """One output map at two neighbouring rows: out (2, count, 8), count a multiple of 5.

    Five columns of both rows stay in registers over all connections. Kernel rows that would read
    above or below the `rows` of x are left out.
    """
    low = max(0, -row)
    high = min(K, rows - 1 - row)
    for q in range(0, count, K):
        tile = filled(bias)
        for p in range(first, last):
            corner = ((sources[p] * rows + row) * columns + q) * LANES
            for ky in range(low, high):
                i = corner + ky * columns * LANES
                tile = convolve(tile, x, i, i + columns * LANES, weight, (p * K + ky) * K)
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


@njit(parallel=True, **OPTIONS)
def _forward(x, shape, weight, bias, starts, sources, padding, threads, slope, y):
    """X (G, C, H, W, 8) -> a (G, M, 2R, 2S, 8) and y (G, M, R, S, 8)."""
    groups, maps, height, width = shape
    pooled_rows = (height + 2 * padding - K + 1) // 2
    pooled = (width + 2 * padding - K + 1) // 2
    count = -(-2 * pooled // 5) * 5
    rows = height + 2 * padding
    columns = max(width + 2 * padding, count + K - 1)
    outputs = len(bias)
    for t in prange(threads):
        padded = np.zeros(maps * rows * columns * LANES, np.float32)
        z = np.empty(2 * count * LANES, np.float32)
        for g in range(t * groups // threads, (t + 1) * groups // threads):
            start = g * maps * height * width * LANES
            _copy_padded(x, start, maps, height, width, padding, padding, rows, columns, padded)
            for m in range(outputs):
                for r in range(pooled_rows):
                    first, last = starts[m], starts[m + 1]
                    _convolve_two_rows(
                        padded,
                        rows,
                        columns,
                        2 * r,
                        weight,
                        sources,
                        first,
                        last,
                        bias[m],
                        count,
                        z,
                    )
                    row = (g * outputs + m) * pooled_rows + r
                    _squash_and_pool(
                        z, count, pooled, slope, row * 4 * pooled * LANES, y, row * pooled * LANES
                    )


# --- backward -----------------------------------------------------------------------------------


@njit(**OPTIONS)
def _gradient_of_sums(grad, slope, row, pooled, d, top, bottom, db):
    """One pooled row of grad (G, M, R, S, 8) -> two rows of d, at `top` and at `bottom`.

    Returns:
        db with this row's gradients added.
    """
    for s in range(pooled):
        g = load(grad, (row * pooled + s) * LANES)
        i = (row * 4 * pooled + 2 * s) * LANES
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
def _turn_round(weight, by_source, out):
    """The kernels (P, 5, 5) in the order of their input maps, each turned by 180 degrees."""
    for n in range(len(by_source)):
        for tap in range(K * K):
            out[n * K * K + tap] = weight[by_source[n] * K * K + K * K - 1 - tap]


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


@njit(parallel=True, **OPTIONS)
def _backward(
    grad,
    x,
    shape,
    slope,
    weight,
    starts,
    sources,
    outputs,
    by_source,
    source_starts,
    padding,
    threads,
    want_input,
    dx,
    dw,
    db,
):
    """Gradients at x, like x, and at the parameters: dw (P, 25) and db (M,).

    Every thread adds up its own groups in order, so that the same number of threads gives the same
    bits.
    """
    groups, maps, height, width = shape
    pooled_rows = (height + 2 * padding - K + 1) // 2
    pooled = (width + 2 * padding - K + 1) // 2
    rows = height + 2 * padding
    columns = width + 2 * padding
    # The gradient at the sums, with a row of zeros above and below, and columns of zeros as the
    # convolution back to the input needs them.
    left = K - 1 - padding
    count = -(-width // 5) * 5
    d_rows = 2 * pooled_rows + 2
    d_columns = max(left + 2 * pooled, count + K - 1)
    turned = np.empty(len(weight), np.float32)
    _turn_round(weight, by_source, turned)
    fed = outputs[by_source]
    zero = np.float32(0)
    out_maps = len(starts) - 1
    dw_parts = np.zeros(threads * len(dw) * LANES, np.float32)
    db_parts = np.zeros(threads * out_maps * LANES, np.float32)
    for t in prange(threads):
        padded = np.zeros(maps * rows * columns * LANES, np.float32)
        d = np.zeros(out_maps * d_rows * d_columns * LANES, np.float32)
        z = np.empty(2 * count * LANES, np.float32)
        for g in range(t * groups // threads, (t + 1) * groups // threads):
            start = g * maps * height * width * LANES
            _copy_padded(x, start, maps, height, width, padding, padding, rows, columns, padded)
            for m in range(out_maps):
                i = (t * out_maps + m) * LANES
                total = load(db_parts, i)
                for r in range(pooled_rows):
                    top = ((m * d_rows + 1 + 2 * r) * d_columns + left) * LANES
                    row = (g * out_maps + m) * pooled_rows + r
                    total = _gradient_of_sums(
                        grad, slope, row, pooled, d, top, top + d_columns * LANES, total
                    )
                store(db_parts, i, total)
            for p in range(len(sources)):
                x_start = sources[p] * rows * columns * LANES
                d_start = ((outputs[p] * d_rows + 1) * d_columns + left) * LANES
                out_start = (t * len(sources) + p) * K * K * LANES
                _weight_gradient(
                    padded,
                    x_start,
                    columns,
                    d,
                    d_start,
                    d_columns,
                    2 * pooled_rows,
                    2 * pooled,
                    dw_parts,
                    out_start,
                )
            if want_input:
                for c in range(maps):
                    first, last = source_starts[c], source_starts[c + 1]
                    for r in range(0, height, 2):
                        top = 1 + r - left
                        _convolve_two_rows(
                            d, d_rows, d_columns, top, turned, fed, first, last, zero, count, z
                        )
                        i = start + (c * height + r) * width * LANES
                        dx[i : i + width * LANES] = z[: width * LANES]
                        if r + 1 < height:
                            i += width * LANES
                            j = count * LANES
                            dx[i : i + width * LANES] = z[j : j + width * LANES]
    _add_up(dw_parts, threads, dw)
    _add_up(db_parts, threads, db)


# --- launchers ----------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _table(pairs: bytes, maps: int, in_maps: int) -> tuple[np.ndarray[Any, Any], ...]:
    """The connections as the kernels walk them: by output map, and by input map."""
    outputs, sources = np.frombuffer(pairs, np.int64).reshape(-1, 2).T.copy()
    starts = np.searchsorted(outputs, np.arange(maps + 1))
    by_source = np.argsort(sources, kind="stable")
    source_starts = np.searchsorted(sources[by_source], np.arange(in_maps + 1))
    return starts, sources, outputs, by_source, source_starts


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
    pooled_rows, pooled = ((size + 2 * padding - K + 1) // 2 for size in (height, width))
    y = x.new_empty(groups, len(bias), pooled_rows, pooled, LANES)
    slope = x.new_empty(groups, len(bias), 2 * pooled_rows, 2 * pooled, LANES)
    starts, sources, *_ = _table(connections.numpy().tobytes(), len(bias), maps)
    shape = (groups, maps, height, width)
    threads = _threads(groups)
    _forward(
        _flat(x),
        shape,
        _flat(weight),
        _flat(bias),
        starts,
        sources,
        padding,
        threads,
        _flat(slope),
        _flat(y),
    )
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
    out_maps = slope.shape[1]
    tables = _table(connections.numpy().tobytes(), out_maps, maps)
    starts, sources, outputs, by_source, source_starts = tables
    threads = _threads(groups)
    dx = x.new_empty(x.shape if want_input else 0)
    dw = torch.empty_like(weight, memory_format=torch.contiguous_format)
    db = x.new_empty(out_maps)
    shape = (groups, maps, height, width)
    _backward(
        _flat(grad),
        _flat(x),
        shape,
        _flat(slope),
        _flat(weight),
        starts,
        sources,
        outputs,
        by_source,
        source_starts,
        padding,
        threads,
        want_input,
        _flat(dx),
        _flat(dw),
        _flat(db),
    )
    return dx, dw, db
