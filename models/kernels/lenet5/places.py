"""Parameters by their addresses, for compiled code: fourteen arrays as one.

Handed over as they are, the arrays of a net's parameters, gradients and velocities would be
hundreds of arguments, and much of what is compiled would move them about.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, types  # type: ignore[attr-defined]
from numba.extending import intrinsic

from models.kernels.compiled import compiled, inlined
from models.kernels.lenet5.memory import Parameters


def places_of(parameters: Parameters) -> np.ndarray[Any, Any]:
    """Where each lies, and how long it is, (14, 2); whoever calls keeps them alive."""
    return np.array([(part.ctypes.data, len(part)) for part in parameters], np.int64)


@compiled(inline="always")
def parameters_at(places):
    """All of them."""
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
    """One of them."""
    return carray(_pointer(places[i, 0]), (places[i, 1],))


@intrinsic
def _pointer(typing: Any, address: Any) -> Any:
    """To float32."""
    kind = types.CPointer(types.float32)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(kind))

    return kind(types.int64), generate
