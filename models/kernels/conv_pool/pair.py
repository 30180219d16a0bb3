"""Forward and backward pass of one group of images through two consecutive blocks.

The first block writes its maps into the frame that the second one reads. Shapes as in `memory.py`;
those of the second block are C2, M2, P2, R2 and S2, where C2 = M.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from models.kernels.compiled import compiled
from models.kernels.conv_pool.backward import (
    add_lanes,
    add_up,
    backward_group,
    gather_input_gradient,
    sum_of_taps,
)
from models.kernels.conv_pool.forward import forward_group, spread_input
from models.kernels.conv_pool.frame import inside
from models.kernels.conv_pool.memory import Layer, Scratch, Shape, scratch_of
from models.kernels.lanes import LANES, empty


class Pair(NamedTuple):
    """Two consecutive blocks, and a thread's memory for each."""

    first: Layer
    second: Layer
    scratch: Scratch
    scratch2: Scratch


class Filters(NamedTuple):
    """The parameters of two blocks, or their gradients."""

    weight: np.ndarray[Any, Any]
    """(P, 5, 5)"""
    bias: np.ndarray[Any, Any]
    """(M,)"""
    weight2: np.ndarray[Any, Any]
    """(P2, 5, 5)"""
    bias2: np.ndarray[Any, Any]
    """(M2,)"""


class Sums(NamedTuple):
    """The gradients at the parameters of two blocks, added up over each of N chunks of groups.

    While a thread works on a chunk, they are vectors of its own, (T, ..., L).
    """

    taps: np.ndarray[Any, Any]
    """(N, 8, P, 5) at the weights, at the points"""
    bias: np.ndarray[Any, Any]
    """(N, M), or (N, 3, M) with coefficients and offsets if these are learnt"""
    taps2: np.ndarray[Any, Any]
    """(N, 8, P2, 5)"""
    bias2: np.ndarray[Any, Any]
    """(N, M2) or (N, 3, M2)"""


def new_sums(
    threads: int, chunks: int, numbers: int, taps: Any, numbers2: int, taps2: Any
) -> tuple[Sums, Sums]:
    """Memory for the sums of threads and of chunks; numbers are the sizes of `bias` and `bias2`."""
    sizes = len(taps), numbers, len(taps2), numbers2
    return (
        Sums(*(empty(threads, size * LANES) for size in sizes)),
        Sums(*(empty(chunks, size) for size in sizes)),
    )


@compiled()
def pair_of(pairs, t):
    """Two blocks with the memory of thread t, from those with the memory of all threads."""
    first, second = scratch_of(pairs.scratch, t), scratch_of(pairs.scratch2, t)
    return Pair(pairs.first, pairs.second, first, second)


@compiled()
def some_sums(sums, chunks):
    """The sums of the first chunks."""
    return Sums(sums.taps[:chunks], sums.bias[:chunks], sums.taps2[:chunks], sums.bias2[:chunks])


@compiled()
def sums_of(sums, worker):
    """A thread's sums, set to 0."""
    own = Sums(sums.taps[worker], sums.bias[worker], sums.taps2[worker], sums.bias2[worker])
    own.taps[:] = 0
    own.bias[:] = 0
    own.taps2[:] = 0
    own.bias2[:] = 0
    return own


@compiled()
def keep_sums(own, sums, chunk):
    """A thread's sums -> those of the chunk that it has finished."""
    add_lanes(own.taps, sums.taps[chunk])
    add_lanes(own.bias, sums.bias[chunk])
    add_lanes(own.taps2, sums.taps2[chunk])
    add_lanes(own.bias2, sums.bias2[chunk])


@compiled()
def total_of_chunks(sums, taps, taps2, gradients):
    """Adds up the chunks' sums in order -> the gradients at the parameters; overwrites the taps."""
    sum_of_taps(sums.taps, taps, gradients.weight)
    add_up(sums.bias, 0, gradients.bias)
    sum_of_taps(sums.taps2, taps2, gradients.weight2)
    add_up(sums.bias2, 0, gradients.bias2)


def kept(shape: Shape, shape2: Shape) -> int:
    """Floats that a group keeps for the backward pass: both slopes and the second block's input."""
    return shape.slopes + shape2.framed + shape2.slopes


@compiled()
def kept_parts(state, shape, shape2):
    """A group's state in parts: the first block's slope, the second's framed input and slope."""
    end = shape.slopes + shape2.framed
    return state[: shape.slopes], state[shape.slopes : end], state[end:]


@compiled()
def forward_both(pair, per_map, per_map2, state, y):
    """Framed images of one group -> y (M2, R2, S2, L) and state."""
    shape, shape2 = pair.first.shape, pair.second.shape
    slope, middle, slope2 = kept_parts(state, shape, shape2)
    middle[:] = 0
    spread_input(pair.scratch.framed, shape, pair.scratch.pixels)
    maps = inside(middle, shape2)
    forward_group(pair.first, per_map, pair.scratch, slope, maps, shape2.rows, shape2.columns)
    spread_input(middle, shape2, pair.scratch2.pixels)
    rows, columns = shape2.pooled_rows, shape2.pooled
    forward_group(pair.second, per_map2, pair.scratch2, slope2, y, rows, columns)


@compiled()
def backward_both(grad, pair, state, sums):
    """Adds one group's gradients to the thread's sums; scratch holds its pixels at the points.

    `grad` (M2, R2, S2, L) is the gradient at the second block's y.
    """
    first, second, scratch, scratch2 = pair
    shape2 = second.shape
    slope, _, slope2 = kept_parts(state, first.shape, shape2)
    rows, columns = shape2.pooled_rows, shape2.pooled
    sums2 = sums.taps2, sums.bias2
    backward_group(grad, rows, columns, second, scratch2, slope2, True, *sums2)
    gather_input_gradient(scratch2.pixel_gradients, shape2, scratch2.framed)
    maps = inside(scratch2.framed, shape2)
    rows, columns = shape2.rows, shape2.columns
    backward_group(maps, rows, columns, first, scratch, slope, False, sums.taps, sums.bias)
