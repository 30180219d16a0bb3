"""LLVM instructions on vectors of L floats, from which the intrinsics of this folder are built.

Each function here adds instructions to `builder`, while Numba compiles, and returns the value that
they compute. A place in an array is an index into its data, without regard to strides. L is that of
`lanes.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils
from numba.core.errors import TypingError

from models.kernels.lanes import LANES

FLOATS = ir.VectorType(ir.FloatType(), LANES)
INTEGERS = ir.VectorType(ir.IntType(32), LANES)


def require_contiguous(array: Any) -> None:
    """Refuses an array type with strides, while Numba compiles."""
    if array.layout != "C":
        raise TypingError("vectors are loaded and stored without regard to strides")


def address(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    """Where array[index] begins, as a pointer to a vector."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), FLOATS.as_pointer())


def ahead(builder: Any, index: Any, step: Any, count: int) -> Any:
    """The index `count` steps further on: index + count * step."""
    return builder.add(index, builder.mul(step, ir.Constant(step.type, count)))


def constant(value: float) -> Any:
    """The value in every lane, known when Numba compiles."""
    return ir.Constant(FLOATS, [float(np.float32(value))] * LANES)


def splat(builder: Any, value: Any) -> Any:
    """The value in every lane."""
    undefined = ir.Constant(FLOATS, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(INTEGERS, [0] * LANES))


def fmuladd(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """A * b + c, in one instruction if the processor has one."""
    kind = ir.FunctionType(FLOATS, [FLOATS] * 3)
    name = f"llvm.fmuladd.v{LANES}f32"
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    return builder.call(function, [a, b, c])


def load(context: Any, builder: Any, array_type: Any, array: Any, index: Any, step: int) -> Any:
    """array[index + step : index + step + L]."""
    index = builder.add(index, ir.Constant(index.type, step))
    return builder.load(address(context, builder, array_type, array, index), align=4)


def store(
    context: Any, builder: Any, array_type: Any, array: Any, index: Any, step: int, value: Any
) -> None:
    """array[index + step : index + step + L] = value."""
    index = builder.add(index, ir.Constant(index.type, step))
    builder.store(value, address(context, builder, array_type, array, index), align=4)
