"""The hyperbolic tangent of a vector, from a polynomial."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.extending import intrinsic

from models.kernels.lanes import LANES
from models.kernels.simd import llvm
from models.kernels.simd.vector import VECTOR

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
    """The hyperbolic tangent, with an absolute error of at most 1.5e-7, and 3e-7 relative.

    It is e / (e + 2) with e = exp(2x) - 1, which keeps its digits near 0.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        (x,) = args
        for relation, limit in ((">", SATURATED), ("<", -SATURATED)):
            beyond = builder.fcmp_ordered(relation, x, llvm.constant(limit))
            x = builder.select(beyond, llvm.constant(limit), x)  # NaN stays NaN
        # exp(2x) = 2^n 2^f, n the nearest integer.
        scale = llvm.constant(2 / np.log(2))
        shifted = llvm.fmuladd(builder, x, scale, llvm.constant(ROUND))
        n = builder.fsub(shifted, llvm.constant(ROUND))
        f = llvm.fmuladd(builder, x, scale, builder.fneg(n))
        series = llvm.constant(EXP2_MINUS_1[0])
        for coefficient in EXP2_MINUS_1[1:]:
            series = llvm.fmuladd(builder, series, f, llvm.constant(coefficient))
        exponent = builder.shl(
            builder.bitcast(shifted, llvm.INTEGERS), ir.Constant(llvm.INTEGERS, [23] * LANES)
        )
        one = ir.Constant(llvm.INTEGERS, [ONE_AS_BITS] * LANES)
        power = builder.bitcast(builder.add(exponent, one), llvm.FLOATS)  # 2^n
        e = llvm.fmuladd(
            builder,
            builder.fmul(series, f),
            power,
            builder.fsub(power, llvm.constant(1)),
        )
        return builder.fdiv(e, builder.fadd(e, llvm.constant(2)))

    return VECTOR(VECTOR), generate
