"""The compiled iteration of LeNet-5 with a clock that measures the time of each piece.

It is made of the kernels' own functions: those that call a piece are compiled once more, with the
piece between two readings of the clock. Each reading adds the time since the last one to the piece
that ran, so the pieces add up to the whole, and none is below zero. The functions that training
calls are unchanged.
"""

from __future__ import annotations

from types import FunctionType
from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import ir
from numba import carray, types  # type: ignore[attr-defined]
from numba.core import cgutils
from numba.core.dispatcher import Dispatcher
from numba.extending import intrinsic

from models.kernels.compiled import OF_PARTS, OPTIONS
from models.kernels.conv_pool import backward, forward, frame
from models.kernels.lanes import LANES
from models.kernels.lenet5 import dense, distort, folding, gradient, head
from models.kernels.simd.vector import add, fma, load, store
from project.bench import operations as names

OUTSIDE, REST = 0, 1
"""Positions of the time outside of the compiled call, and of the unnamed rest in it."""


# Without the cache of the kernels, which considers only their files: the clock's address differs in
# each process.
_entry: Any = numba.njit(**OPTIONS)
_compiled: Any = numba.njit(**OF_PARTS)


@_compiled
def _alone(args):
    return 0


@_compiled
def _by_second(args):
    return 1 if args[1].maps > 1 else 0


@_compiled
def _by_layer(args):
    return 1 if args[0].shape.maps > 1 else 0


@_compiled
def _by_fourth(args):
    return 1 if args[3].shape.maps > 1 else 0


class Piece(NamedTuple):
    """Functions whose time is measured together."""

    functions: tuple[Any, ...]
    names: tuple[str, ...]
    which: Any = _alone
    """Chooses the name by the arguments: C1 reads one map, C3 more."""


# The time of a piece does not include that of other pieces that it calls.
PIECES = (
    Piece((distort.pick_images, frame.frame_images), (names.IMAGES,)),
    Piece((forward.spread_input,), names.TO_POINTS, _by_second),
    Piece((forward._convolve_strip,), names.CONVOLUTION, _by_layer),
    Piece((forward.forward_group,), names.SQUASH, _by_layer),
    Piece((dense.dense,), (names.DENSE,)),
    Piece((head.loss_of_group,), (names.LOSS,)),
    Piece((dense.dense_input_gradient, dense.through_tanh), (names.DENSE_INPUTS,)),
    Piece((backward.backward_group,), names.SLOPES, _by_fourth),
    Piece((backward._weight_gradient,), names.WEIGHTS, _by_layer),
    Piece((backward._input_gradient, backward.gather_input_gradient), (names.INPUTS,)),
    Piece((dense.dense_weight_gradient, dense.dense_bias_gradient), (names.DENSE_WEIGHTS,)),
    Piece((backward.add_lanes, backward.sum_of_taps, gradient._add_up_all), (names.SUMS,)),
    Piece((gradient.take_step, folding.scale, gradient._spread), (names.UPDATE,)),
)


class Stamped:
    """`descent` with a clock in it, for one thread."""

    def __init__(self) -> None:
        self.names = ["", names.REST, *(name for piece in PIECES for name in piece.names)]
        # The last reading, the running piece, and the time of each piece.
        self._clock = np.zeros(2 + len(self.names), np.int64)
        self._look = _look_of(self._clock)
        self._done: dict[Any, Any] = {}
        self._pieces = {function: piece for piece in PIECES for function in piece.functions}
        self.descent = _whole_between_looks(self._with_clock(gradient.descent), self._look)

    def take(self) -> dict[str, int]:
        """Returns the ticks of each piece since the last call."""
        ticks = self._clock[2:]
        taken = dict(zip(self.names, ticks.tolist(), strict=True))
        ticks[:] = 0
        del taken[""]
        return taken

    def _with_clock(self, function: Any) -> Any:
        """Returns the function, compiled once more if it is or calls a piece."""
        if function not in self._done:
            made = self._with_clock_inside(function)
            if piece := self._pieces.get(function):
                place = self.names.index(piece.names[0])
                made = _between_looks(made, self._look, place, piece.which)
            self._done[function] = made
        return self._done[function]

    def _with_clock_inside(self, function: Any) -> Any:
        python = function.py_func
        variables = dict(python.__globals__)
        for name in python.__code__.co_names:
            if isinstance(variables.get(name), Dispatcher):
                variables[name] = self._with_clock(variables[name])
        changed = any(variables[name] is not value for name, value in python.__globals__.items())
        if not changed:
            return function
        options = dict(function.targetoptions)
        del options["nopython"]  # implied
        options["pipeline_class"] = function._compiler.pipeline_class
        counted = FunctionType(python.__code__, variables, python.__name__)
        # With its own name: functions cached on disk were numbered in another process, and of two
        # with the same name and number the linker would take either.
        counted.__qualname__ = f"{python.__qualname__}_with_a_clock"
        return numba.njit(**options)(counted)


def _look_of(clock: np.ndarray[Any, Any]) -> Any:
    """Returns a compiled function that adds the time since the last reading to the running piece.

    It returns that piece and makes another one the running piece.
    """
    address, length = clock.ctypes.data, len(clock)

    @_compiled
    def look(piece):
        clock = carray(_int64_at(address), (length,))
        now, before = ticks_now(), clock[1]
        clock[2 + before] += now - clock[0]
        clock[0], clock[1] = now, piece
        return before

    return look


def _between_looks(function: Any, look: Any, place: int, which: Any) -> Any:
    @_compiled
    def call(*args):
        before = look(place + which(args))
        result = function(*args)
        look(before)
        return result

    return call


def _whole_between_looks(descent: Any, look: Any) -> Any:
    # With named arguments, since Python passes them.
    @_entry
    def call(worker, tickets, batches, steps, update, net, memory, each, losses):
        before = look(REST)
        descent(worker, tickets, batches, steps, update, net, memory, each, losses)
        look(before)

    return call


@intrinsic
def ticks_now(typing: Any) -> Any:
    """Reads the processor's time counter."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.IntType(64), [])
        name = "llvm.readcyclecounter"
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [])

    return types.int64(), generate


@intrinsic
def _int64_at(typing: Any, address: Any) -> Any:
    """Converts an address to a pointer to int64."""
    kind = types.CPointer(types.int64)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(kind))

    return kind(types.int64), generate


@_entry
def ticks():
    """`ticks_now` for Python."""
    return ticks_now()


CHAINS = 10


@_entry
def multiply_add(count, numbers):
    """Multiplies and adds `count` times in each of ten chains, numbers (2 L,) at a time."""
    x, y = load(numbers, 0), load(numbers, LANES)
    a = b = c = d = e = f = g = h = i = j = y
    for _ in range(count):
        a, b, c, d, e = fma(a, x, y), fma(b, x, y), fma(c, x, y), fma(d, x, y), fma(e, x, y)
        f, g, h, i, j = fma(f, x, y), fma(g, x, y), fma(h, x, y), fma(i, x, y), fma(j, x, y)
    store(numbers, LANES, add(add(add(a, b), add(c, d)), add(add(e, f), add(add(g, h), add(i, j)))))
