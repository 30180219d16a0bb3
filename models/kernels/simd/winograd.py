"""Winograd's minimal filtering F(4, 5): the transforms to its points and back.

Four neighbouring sums of a filter with five taps take eight products, not twenty (Winograd,
Arithmetic Complexity of Computations, 1980; Lavin and Gray, Fast Algorithms for Convolutional
Neural Networks, 2016, section 4). A product of two polynomials, of degree 7, follows from its
values at eight points, which are products of the factors' values; filtering is the transposed map.
Here it is applied along rows; along columns the filter is an ordinary one.

"At the points" means transformed that way, one value for each of the eight points.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from models.kernels.lanes import LANES
from models.kernels.simd import llvm
from models.kernels.simd.vector import VECTOR
from models.kernels.sizes import KERNEL

STRIP = 4  # columns of sums
POINTS = (0, 1, -1, 2, -2, 1 / 2, -1 / 2, np.inf)  # where the polynomials are evaluated
COUNT = len(POINTS)
PAIRS = (1, 3, 5)  # of points p and -p
ONE = POINTS.index(1)


def _powers(count: int) -> np.ndarray[Any, Any]:
    """A polynomial's coefficients -> its values at the points; at infinity, the last one."""
    return np.vstack([np.vander(POINTS[:-1], count, increasing=True), np.eye(count)[-1]])


def _lagrange(i: int) -> np.ndarray[Any, Any]:
    """The coefficients of Lagrange's polynomial for point i, which is 0 at all other finite points.

    Without its denominator, so that they are exact in binary.
    """
    coefficients = np.poly(np.delete(POINTS[:-1], i) if i < COUNT - 1 else POINTS[:-1])
    return np.pad(coefficients[::-1], (0, COUNT - len(coefficients)))


# Transforms to the points, of pixels, of gradients at the sums, and of taps: in Lavin and Gray's
# letters B^T (8, 8), A (8, 4) and G (8, 5). G has the denominators; it alone is rounded.
OF_PIXELS = np.array([_lagrange(i) for i in range(COUNT)])
OF_SUMS = _powers(STRIP)
OF_TAPS = (_powers(KERNEL) / (_powers(COUNT) * OF_PIXELS).sum(1, keepdims=True)).astype(np.float32)


def _sum(builder: Any, factors: Any, values: Any) -> Any:
    """The sum of factors times values."""
    # Those with the factor 1 first: they begin the sum.
    terms = sorted(zip(factors, values, strict=True), key=lambda term: term[0] != 1)
    total = None
    for factor, value in terms:
        if factor == 0:
            continue
        product = value if factor == 1 else builder.fmul(llvm.constant(factor), value)
        if total is None:
            total = product
        elif factor == 1:
            total = builder.fadd(total, product)
        else:
            total = llvm.fmuladd(builder, llvm.constant(factor), value, total)
    return total


def _evaluate(builder: Any, matrix: Any, values: Any) -> list[Any]:
    """Matrix (8, N) @ values; at -p, odd coefficients have the opposite sign of those at p."""
    out = [_sum(builder, matrix[0], values)]
    for i in PAIRS:
        even, odd = (_sum(builder, matrix[i][n::2], values[n::2]) for n in (0, 1))
        out += builder.fadd(even, odd), builder.fsub(even, odd)
    return [*out, _sum(builder, matrix[-1], values)]


def _evaluate_transposed(builder: Any, matrix: Any, values: Any) -> list[Any]:
    """The transposed matrix (N, 8) @ values."""
    kept = [0, *PAIRS, COUNT - 1]
    both = [[*values], [*values]]
    for i in PAIRS:
        both[0][i] = builder.fadd(values[i], values[i + 1])
        both[1][i] = builder.fsub(values[i], values[i + 1])
    return [
        _sum(builder, matrix[kept, n], [both[n % 2][i] for i in kept])
        for n in range(matrix.shape[1])
    ]


@intrinsic
def spread_pixels(typing: Any, x: Any, i: Any, out: Any, j: Any, step: Any) -> Any:
    """Eight neighbouring pixels from x[i] on -> their values at the points, `step` apart."""
    llvm.require_contiguous(x)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x_type, _, out_type, _, _ = signature.args
        x, i, out, j, step = args
        pixels = [llvm.load(context, builder, x_type, x, i, n * LANES) for n in range(COUNT)]
        for n, value in enumerate(_evaluate(builder, OF_PIXELS, pixels)):
            llvm.store(context, builder, out_type, out, llvm.ahead(builder, j, step, n), 0, value)
        return context.get_dummy_value()

    return types.void(x, types.intp, out, types.intp, types.intp), generate


@intrinsic
def spread_sums(typing: Any, a: Any, b: Any, c: Any, d: Any, out: Any, j: Any, step: Any) -> Any:
    """Gradients at four sums -> those at the points, `step` apart from out[j] on."""
    llvm.require_contiguous(out)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        *sums, out, j, step = args
        for n, value in enumerate(_evaluate(builder, OF_SUMS, sums)):
            place = llvm.ahead(builder, j, step, n)
            llvm.store(context, builder, signature.args[4], out, place, 0, value)
        return context.get_dummy_value()

    return types.void(a, b, c, d, out, types.intp, types.intp), generate


def _load_points(context: Any, builder: Any, x_type: Any, x: Any, i: Any, step: Any) -> list[Any]:
    places = [llvm.ahead(builder, i, step, n) for n in range(COUNT)]
    return [llvm.load(context, builder, x_type, x, place, 0) for place in places]


@intrinsic
def gather_sums(typing: Any, x: Any, i: Any, step: Any) -> Any:
    """Products at the points, `step` apart from x[i] on -> four sums."""
    llvm.require_contiguous(x)
    kind = types.UniTuple(VECTOR, STRIP)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        products = _load_points(context, builder, signature.args[0], *args)
        sums = _evaluate_transposed(builder, OF_SUMS, products)
        return context.make_tuple(builder, kind, sums)

    return kind(x, types.intp, types.intp), generate


@intrinsic
def gather_pixels(typing: Any, shared: Any, x: Any, i: Any, step: Any, out: Any, j: Any) -> Any:
    """Gradients at the points, `step` apart from x[i] on -> those at four pixels, from out[j] on.

    Returns the part for the next four pixels; `shared` is the strip before's part for these.
    """
    llvm.require_contiguous(x)
    llvm.require_contiguous(out)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, x_type, _, _, out_type, _ = signature.args
        shared, x, i, step, out, j = args
        gradients = _load_points(context, builder, x_type, x, i, step)
        pixels = _evaluate_transposed(builder, OF_PIXELS, gradients)
        for n, before in enumerate(cgutils.unpack_tuple(builder, shared)):
            total = builder.fadd(before, pixels[n])
            llvm.store(context, builder, out_type, out, j, n * LANES, total)
        return context.make_tuple(builder, signature.return_type, pixels[STRIP:])

    return shared(shared, x, types.intp, types.intp, out, types.intp), generate


@intrinsic
def no_pixels(typing: Any) -> Any:
    """Zeros for four pixels."""
    kind = types.UniTuple(VECTOR, STRIP)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return context.make_tuple(builder, kind, [llvm.constant(0)] * STRIP)

    return kind(), generate
