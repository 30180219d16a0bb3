"""L floats as one value: load, store, add, multiply, transpose; L as in `lanes.py`.

Numba knows the value as the type Vector. Each function here is an intrinsic: it is called in
compiled code, with Vectors or with a contiguous array of float32 and an index into it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

from models.kernels.lanes import LANES
from models.kernels.simd import llvm


class Vector(types.Type):
    """Numba's type of L float32 in one register (two, if registers are narrow)."""

    def __init__(self) -> None:
        super().__init__(name="Vector")


VECTOR = Vector()


@register_model(Vector)
class VectorModel(models.PrimitiveModel):
    """A Vector is LLVM's <L x float>."""

    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, llvm.FLOATS)


@intrinsic
def load(typing: Any, array: Any, index: Any) -> Any:
    """array[index : index + L]."""
    llvm.require_contiguous(array)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(llvm.address(context, builder, signature.args[0], *args), align=4)

    return VECTOR(array, types.intp), generate


@intrinsic
def store(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """array[index : index + L] = value."""
    llvm.require_contiguous(array)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array, index, value = args
        address = llvm.address(context, builder, signature.args[0], array, index)
        builder.store(value, address, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, VECTOR), generate


@intrinsic
def splat(typing: Any, value: Any) -> Any:
    """The float32 value in every lane."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return llvm.splat(builder, args[0])

    return VECTOR(types.float32), generate


@intrinsic
def fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """A * b + c, in one instruction if the processor has one."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return llvm.fmuladd(builder, *args)

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
def total_of(typing: Any, x: Any) -> Any:
    """The sum of the L floats, by halves."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.FloatType(), [ir.FloatType(), llvm.FLOATS])
        name = f"llvm.vector.reduce.fadd.v{LANES}f32"
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        zero = ir.Constant(ir.FloatType(), 0)
        return builder.call(function, [zero, *args], fastmath=("reassoc",))

    return types.float32(VECTOR), generate


@intrinsic
def totals_of(typing: Any, x: Any, i: Any, out: Any, j: Any) -> Any:
    """The sums of L vectors, x[i : i + L * L], each by halves: out[j : j + L]."""
    llvm.require_contiguous(x)
    llvm.require_contiguous(out)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x_type, _, out_type, _ = signature.args
        x, i, out, j = args
        sums = [llvm.load(context, builder, x_type, x, i, n * LANES) for n in range(LANES)]
        # Each pass leaves half as many vectors, with the halves of two added in every one.
        while len(sums) > 1:
            half = len(sums) // 2
            sums = [builder.fadd(*_halves(builder, sums[n], sums[n + half])) for n in range(half)]
        llvm.store(context, builder, out_type, out, j, 0, sums[0])
        return context.get_dummy_value()

    return types.void(x, types.intp, out, types.intp), generate


@intrinsic
def transpose(typing: Any, x: Any, i: Any, x_step: Any, out: Any, j: Any, out_step: Any) -> Any:
    """L vectors of x, x_step apart from x[i] on, as columns of L vectors of out."""
    llvm.require_contiguous(x)
    llvm.require_contiguous(out)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x_type, *_, out_type, _, _ = signature.args
        x, i, x_step, out, j, out_step = args

        def addresses(array_type: Any, array: Any, start: Any, step: Any) -> Any:
            for n in range(LANES):
                yield llvm.address(
                    context, builder, array_type, array, llvm.ahead(builder, start, step, n)
                )

        rows = [builder.load(place, align=4) for place in addresses(x_type, x, i, x_step)]
        half = LANES // 2
        # Each pass rotates the bits of (row, column) by one; half of them is a transposition.
        for _ in range(LANES.bit_length() - 1):
            rows = [part for n in range(half) for part in _halves(builder, rows[n], rows[n + half])]
        for row, place in zip(rows, addresses(out_type, out, j, out_step), strict=True):
            builder.store(row, place, align=4)
        return context.get_dummy_value()

    return types.void(x, types.intp, types.intp, out, types.intp, types.intp), generate


def _halves(builder: Any, a: Any, b: Any) -> Iterator[Any]:
    """The first halves of two vectors, lane by lane in turns, and the second ones."""
    for start in (0, LANES // 2):
        lanes = [lane + n for lane in range(start, start + LANES // 2) for n in (0, LANES)]
        yield builder.shuffle_vector(a, b, ir.Constant(llvm.INTEGERS, lanes))
