"""Sizes, connections and memory of one block on the CPU, and how its arrays are laid out.

Shapes: B images, G groups of L, C input maps, M output maps, P connections, H W input pixels, R S
pooled pixels (so 2R 2S convolved ones), Q strips of four columns, T threads. Arrays are flat inside
the kernels; comments give shapes. "At the points" means transformed for Winograd's filtering, with
one value for each of eight points.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.kernels import doors
from models.kernels.compiled import compiled, inlined
from models.kernels.lanes import LANES, empty, zeros
from models.kernels.simd.winograd import COUNT, STRIP
from models.kernels.sizes import KERNEL, TILE, pooled_size


class Shape(NamedTuple):
    """Sizes of one block, in maps and pixels."""

    maps: int
    height: int
    width: int
    padding: int
    outputs: int
    pooled_rows: int
    pooled: int
    strips: int
    """Q, of four columns of sums each."""
    at_once: int
    """N, the strips whose gradients are computed together."""
    rows: int
    """Rows of the input's frame."""
    columns: int
    """Columns of the input's frame."""
    line: int
    """Rows of a column of pixels, zero-padded to whole tiles of sums."""
    gradient_line: int
    """Rows of a column of gradients, zero-padded to a multiple of five."""
    slopes: int
    """Floats of one group's slope."""
    framed: int
    """Floats of one group's framed input."""
    features: int
    """Pooled pixels of all output maps."""


class Table(NamedTuple):
    """The connections, sorted by output map."""

    starts: np.ndarray[Any, Any]
    """(M + 1,) where each output map's connections begin"""
    sources: np.ndarray[Any, Any]
    """(P,) input map of each connection"""
    outputs: np.ndarray[Any, Any]
    """(P,) output map of each connection"""


@lru_cache(maxsize=64)
def shape_of(maps: int, height: int, width: int, padding: int, outputs: int) -> Shape:
    """The sizes of a block with that many output maps."""
    pooled_rows, pooled = pooled_size(height, width, padding)
    strips = -(-2 * pooled // STRIP)
    rows, columns = height + 2 * padding, max(width + 2 * padding, strips * STRIP + KERNEL - 1)
    return Shape(
        maps=maps,
        height=height,
        width=width,
        padding=padding,
        outputs=outputs,
        pooled_rows=pooled_rows,
        pooled=pooled,
        strips=strips,
        # About thirty rows, so that it pays to keep the sums over them in registers; not more, so
        # that the gradients stay in the cache.
        at_once=min(strips, max(1, 3 * TILE // (2 * pooled_rows))),
        rows=rows,
        columns=columns,
        line=-(-2 * pooled_rows // TILE) * TILE + KERNEL - 1,
        gradient_line=-(-(2 * pooled_rows + KERNEL - 1) // KERNEL) * KERNEL,
        slopes=outputs * 4 * pooled_rows * pooled * LANES,
        framed=maps * rows * columns * LANES,
        features=outputs * pooled_rows * pooled,
    )


def table_of(connections: Tensor, outputs: int, inputs: int) -> Table:
    """The table of connections (P, 2) of output and input maps.

    Raises:
        ValueError: the maps do not exist, or the connections are not in order.
    """
    # Cached by value, since the numbers may have changed since the last call.
    return _table_of_bytes(connections.numpy().tobytes(), outputs, inputs)


@lru_cache(maxsize=64)
def _table_of_bytes(pairs: bytes, outputs: int, inputs: int) -> Table:
    connections = np.frombuffer(pairs, np.int64).reshape(-1, 2).copy()
    doors.check_connections(torch.from_numpy(connections), outputs, inputs)
    to, sources = connections.T.copy()
    return Table(np.searchsorted(to, np.arange(outputs + 1)), sources, to)


class PerMap(NamedTuple):
    """The parameters of each output map beside its weights.

    A pixel is tanh(coefficient * four + offset), where four sums up 2x2 of tanh(sums + bias).
    """

    bias: np.ndarray[Any, Any]
    """(M,)"""
    coefficient: np.ndarray[Any, Any]
    """(M,) 1/4 for average pooling"""
    offset: np.ndarray[Any, Any]
    """(M,)"""


class Layer(NamedTuple):
    """One block, as the loops over a group need it."""

    shape: Shape
    table: Table
    taps: np.ndarray[Any, Any]
    """(8, P, 5) the weights at the points, for each row of a kernel"""


class Scratch(NamedTuple):
    """A thread's memory for one block and one group."""

    framed: np.ndarray[Any, Any]
    """(C, rows, columns, L) the input in its frame; in the second of two blocks, the gradient at
    the input"""
    pixels: np.ndarray[Any, Any]
    """(8, Q, C, line, L) the input at the points"""
    products: np.ndarray[Any, Any]
    """(8, line, L) one strip of one map, at the points"""
    a: np.ndarray[Any, Any]
    """(2R, 4, L) tanh of the sums of one strip of one map"""
    fours: np.ndarray[Any, Any]
    """(M, R, S, L) the sums of 2x2 of them; empty if no coefficient is learnt"""
    d: np.ndarray[Any, Any]
    """(8, N, M, gradient_line, L) the gradient at the sums of some strips, at the points"""
    pixel_gradients: np.ndarray[Any, Any]
    """(8, Q, C, gradient_line, L) the gradient at the input, at the points"""


def new_scratches(
    shape: Shape, threads: int, backward: bool, coefficients: bool = False
) -> Scratch:
    """The memory of all threads: every array with one more dimension in front.

    `backward` says whether the gradient is needed, `coefficients` whether that includes theirs.
    """
    columns = COUNT * shape.strips * shape.maps * LANES
    d_columns = COUNT * shape.at_once * shape.outputs * LANES if backward else 0
    # Zeros, since pixels outside of the image, or after the end of a line, are never written.
    return Scratch(
        zeros(threads, shape.framed),
        zeros(threads, columns * shape.line),
        empty(threads, COUNT * shape.line * LANES),
        empty(threads, 2 * shape.pooled_rows * STRIP * LANES),
        empty(threads, shape.features * LANES if coefficients else 0),
        zeros(threads, d_columns * shape.gradient_line),
        empty(threads, columns * shape.gradient_line if backward else 0),
    )


@compiled()
def scratch_of(scratches, t):
    """The memory of thread t."""
    return Scratch(
        scratches.framed[t],
        scratches.pixels[t],
        scratches.products[t],
        scratches.a[t],
        scratches.fours[t],
        scratches.d[t],
        scratches.pixel_gradients[t],
    )


def averaging(bias: np.ndarray[Any, Any]) -> PerMap:
    """The parameters of each output map with average pooling, which learns nothing."""
    quarters = np.full(len(bias), 1 / 4, np.float32)
    return PerMap(bias, quarters, np.zeros(len(bias), np.float32))


@compiled()
def part(parts, n, count):
    """Part n of `count` equal parts."""
    size = len(parts) // count
    return parts[n * size : (n + 1) * size]


@inlined
def line(point, q, m, strips, maps, length):
    """Where a line of (8, strips, maps, length, L) begins."""
    return ((point * strips + q) * maps + m) * length * LANES
