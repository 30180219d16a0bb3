"""Passes a network's parameters to compiled code by their addresses: fourteen arrays as one.

Passed one by one, the arrays of parameters, gradients and velocities would be hundreds of
arguments, and much of the compiled code would only move these.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, types  # type: ignore[attr-defined]
from numba.extending import intrinsic

from models.kernels.compiled import compiled, inlined
from models.kernels.lenet5.memory import Parameters


def places_of(parameters: Parameters) -> np.ndarray[Any, Any]:
    """The address and length of each array, (14, 2); the caller must keep the arrays alive."""
    return np.array([(part.ctypes.data, len(part)) for part in parameters], np.int64)


@compiled(inline="always")
def parameters_at(places):
    """All arrays at these places."""
    return Parameters(
        array_at(places, 0),
        array_at(places, 1),
        array_at(places, 2),
        array_at(places, 3),
        array_at(places, 4),
        array_at(places, 5),
        array_at(places, 6),
        array_at(places, 7),
        array_at(places, 8),
        array_at(places, 9),
        array_at(places, 10),
        array_at(places, 11),
        array_at(places, 12),
        array_at(places, 13),
    )


@inlined
def array_at(places, i):
    """The array at place i."""
    return carray(_pointer(places[i, 0]), (places[i, 1],))


@intrinsic
def _pointer(typing: Any, address: Any) -> Any:
    """A pointer to float32 from an address."""
    kind = types.CPointer(types.float32)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(kind))

    return kind(types.int64), generate
