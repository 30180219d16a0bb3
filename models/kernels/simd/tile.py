"""A tile: ten sums that stay in registers, each a vector, and the operations that add to them.

A tile is a tuple of ten Vectors. Images lie in lanes, so that neighbouring pixels of a line are
neighbouring vectors, and five taps of a kernel are five Vectors that hold one number each.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from models.kernels.lanes import LANES
from models.kernels.simd import llvm
from models.kernels.simd.vector import VECTOR
from models.kernels.sizes import KERNEL, TILE


@intrinsic
def filled(typing: Any, value: Any) -> Any:
    """A tile that holds the float32 value everywhere."""
    kind = types.UniTuple(VECTOR, TILE)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return context.make_tuple(builder, kind, [llvm.splat(builder, args[0])] * TILE)

    return kind(types.float32), generate


@intrinsic
def store_tile(typing: Any, tile: Any, out: Any, i: Any) -> Any:
    """out[i : i + 10 L] = tile."""
    llvm.require_contiguous(out)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        tile, out, i = args
        for n, value in enumerate(cgutils.unpack_tuple(builder, tile)):
            llvm.store(context, builder, signature.args[1], out, i, n * LANES, value)
        return context.get_dummy_value()

    return types.void(tile, out, types.intp), generate


@intrinsic
def load_taps(typing: Any, weight: Any, i: Any) -> Any:
    """weight[i : i + 5], each in every lane."""
    kind = types.UniTuple(VECTOR, KERNEL)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        weight, i = args
        data = context.make_array(signature.args[0])(context, builder, weight).data
        places = [builder.add(i, ir.Constant(i.type, tap)) for tap in range(KERNEL)]
        taps = [llvm.splat(builder, builder.load(builder.gep(data, [place]))) for place in places]
        return context.make_tuple(builder, kind, taps)

    return kind(weight, types.intp), generate


@intrinsic
def convolve(typing: Any, tile: Any, x: Any, i: Any, taps: Any) -> Any:
    """Adds taps[0] x[i + n] + ... + taps[4] x[i + n + 4] to sum n of a tile, in vectors."""
    llvm.require_contiguous(x)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        tile, x, i, taps = args
        sums, taps = (cgutils.unpack_tuple(builder, values) for values in (tile, taps))
        # Every pixel is loaded once for all the sums that it belongs to, in an order in which a sum
        # comes again only after all the others.
        for place in sorted(range(TILE + KERNEL - 1), key=lambda place: place % KERNEL):
            pixel = llvm.load(context, builder, signature.args[1], x, i, place * LANES)
            for n in range(max(0, place - KERNEL + 1), min(TILE, place + 1)):
                sums[n] = llvm.fmuladd(builder, taps[place - n], pixel, sums[n])
        return context.make_tuple(builder, signature.return_type, sums)

    return tile(tile, x, types.intp, taps), generate


def _convolution_back(*, after_zeros: bool = False, before_zeros: bool = False) -> Any:
    """The intrinsic for five sums, which read nine vectors.

    It leaves out the first four of them after zeros, and the last five before zeros.
    """

    @intrinsic
    def convolve_back(typing: Any, d: Any, j: Any, taps: Any, out: Any, i: Any) -> Any:
        llvm.require_contiguous(d)
        llvm.require_contiguous(out)
        first = 0 if after_zeros else 1 - KERNEL
        last = 0 if before_zeros else KERNEL

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            d_type, _, _, out_type, _ = signature.args
            d, j, taps, out, i = args
            taps = cgutils.unpack_tuple(builder, taps)
            sums = [llvm.load(context, builder, out_type, out, i, n * LANES) for n in range(KERNEL)]
            for place in range(first, last):
                slope = llvm.load(context, builder, d_type, d, j, place * LANES)
                for n in range(max(0, place), min(KERNEL, place + KERNEL)):
                    sums[n] = llvm.fmuladd(builder, taps[n - place], slope, sums[n])
            for n, value in enumerate(sums):
                llvm.store(context, builder, out_type, out, i, n * LANES, value)
            return context.get_dummy_value()

        return types.void(d, types.intp, taps, out, types.intp), generate

    return convolve_back


# Adds taps[0] d[j + n] + ... + taps[4] d[j + n - 4] to out[i + n] for n from 0 to 4, in vectors.
convolve_back = _convolution_back()
convolve_back_after_zeros = _convolution_back(after_zeros=True)
convolve_back_before_zeros = _convolution_back(before_zeros=True)


@intrinsic
def correlate(typing: Any, tile: Any, x: Any, i: Any, d: Any, j: Any) -> Any:
    """Adds the products of d[j] and d[j + L] with five vectors of x each, the taps of two rows."""
    llvm.require_contiguous(x)
    llvm.require_contiguous(d)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, x_type, _, d_type, _ = signature.args
        tile, x, i, d, j = args
        sums = cgutils.unpack_tuple(builder, tile)
        pixels = [llvm.load(context, builder, x_type, x, i, n * LANES) for n in range(KERNEL + 1)]
        for row in range(2):
            slope = llvm.load(context, builder, d_type, d, j, row * LANES)
            for tap in range(KERNEL):
                n = row * KERNEL + tap
                sums[n] = llvm.fmuladd(builder, slope, pixels[row + tap], sums[n])
        return context.make_tuple(builder, signature.return_type, sums)

    return tile(tile, x, types.intp, d, types.intp), generate


@intrinsic
def add_taps(typing: Any, tile: Any, out: Any, i: Any) -> Any:
    """Adds the sums of `correlate` to five vectors, from out[i] on."""
    llvm.require_contiguous(out)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        tile, out, i = args
        sums = cgutils.unpack_tuple(builder, tile)
        for tap in range(KERNEL):
            before = llvm.load(context, builder, signature.args[1], out, i, tap * LANES)
            both = builder.fadd(sums[tap], sums[KERNEL + tap])
            total = builder.fadd(before, both)
            llvm.store(context, builder, signature.args[1], out, i, tap * LANES, total)
        return context.get_dummy_value()

    return types.void(tile, out, types.intp), generate


@intrinsic
def add_outer(typing: Any, tile: Any, x: Any, i: Any, factors: Any, j: Any, step: Any) -> Any:
    """Adds x[i : i + L] times factors[j + n step] to vector n of a tile."""
    llvm.require_contiguous(x)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, x_type, _, factors_type, _, _ = signature.args
        tile, x, i, factors, j, step = args
        sums = cgutils.unpack_tuple(builder, tile)
        vector = llvm.load(context, builder, x_type, x, i, 0)
        data = context.make_array(factors_type)(context, builder, factors).data
        for n in range(TILE):
            index = llvm.ahead(builder, j, step, n)
            factor = llvm.splat(builder, builder.load(builder.gep(data, [index])))
            sums[n] = llvm.fmuladd(builder, factor, vector, sums[n])
        return context.make_tuple(builder, signature.return_type, sums)

    return tile(tile, x, types.intp, factors, types.intp, types.intp), generate
