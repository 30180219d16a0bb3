"""The fused block on the CPU, one block or two consecutive ones, on torch's tensors.

Compiled by Numba: a vector holds a pixel of each image of a group, and threads share the groups.
`compiled.py` caches the machine code, so that only the first run on a machine waits for it.

Shapes: B images, G groups in the layout of `lanes.py`, C input maps, M output maps, P connections,
H W input pixels, R S pooled pixels (so 2R 2S convolved ones).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.kernels import doors
from models.kernels.chunks import chunks_of
from models.kernels.conv_pool import parallel
from models.kernels.conv_pool.forward import new_taps
from models.kernels.conv_pool.memory import (
    Layer,
    Shape,
    Table,
    averaging,
    new_scratches,
    shape_of,
    table_of,
)
from models.kernels.conv_pool.pair import Filters, Pair, kept, new_sums
from models.kernels.lanes import LANES, empty, zeros
from models.kernels.threads import share_out, threads_for


class Convolution(NamedTuple):
    """The arguments of one block, as in `forward`."""

    weight: Tensor
    bias: Tensor
    connections: Tensor
    padding: int


def flat(x: Tensor) -> np.ndarray[Any, Any]:
    """The numbers of a tensor as a flat array, for compiled code."""
    # ravel, not reshape(-1), which keeps the strides of 0 of an expanded tensor.
    array: np.ndarray[Any, Any] = x.detach().numpy().ravel()
    return array


def forward(
    x: Tensor, weight: Tensor, bias: Tensor, connections: Tensor, padding: int
) -> tuple[Tensor, Tensor]:
    """Runs the block.

    Args:
        x: (G, C, H, W, L) float32.
        weight: (P, 5, 5).
        bias: (M,).
        connections: (P, 2), sorted by output map.
        padding: zeros on each side of H and W.

    Returns:
        y (G, M, R, S, L), and its derivative by the pre-activations (G, M, 2R, 2S, L).

    Raises:
        TypeError: an argument of another type.
        ValueError: shapes that do not fit, connections of maps that do not exist.
    """
    doors.check_conv_pool(x, weight, bias, connections, padding, doors.GROUPS)
    groups, maps, height, width, _ = x.shape
    shape = shape_of(maps, height, width, padding, len(bias))
    table = table_of(connections, len(bias), maps)
    y = x.new_empty(groups, len(bias), shape.pooled_rows, shape.pooled, LANES)
    slope = x.new_empty(groups, len(bias), 2 * shape.pooled_rows, 2 * shape.pooled, LANES)
    layer, per_map = Layer(shape, table, new_taps(flat(weight))), averaging(flat(bias))
    threads = threads_for(groups)
    scratches = new_scratches(shape, threads, backward=False)
    data = flat(x), groups, layer, flat(weight), per_map, scratches, flat(slope), flat(y)
    share_out(parallel.forward, threads, *data)
    return y, slope


def backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    connections: Tensor,
    padding: int,
    slope: Tensor,
    want_input: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `forward`'s first result; arguments and errors as there.

    Returns:
        The gradients at x (empty unless `want_input`), weight and bias.
    """
    doors.check_conv_pool_gradient(grad, x, weight, connections, padding, slope, doors.GROUPS)
    groups, maps, height, width, _ = x.shape
    outputs = slope.shape[1]
    dx = x.new_empty(x.shape if want_input else 0)
    dw = torch.empty_like(weight, memory_format=torch.contiguous_format)
    db = x.new_empty(outputs)
    shape = shape_of(maps, height, width, padding, outputs)
    layer = Layer(shape, table_of(connections, outputs, maps), new_taps(flat(weight)))
    chunks = chunks_of(groups)
    threads = threads_for(chunks)
    scratches = new_scratches(shape, threads, backward=True)
    framed = zeros(threads, shape.framed if want_input else 0)
    sizes = len(layer.taps), outputs
    own = tuple(empty(threads, size * LANES) for size in sizes)
    sums = tuple(empty(chunks, size) for size in sizes)
    data = flat(grad), flat(x), groups, layer, flat(weight), scratches, flat(slope), framed
    share_out(parallel.backward, threads, *data, own, sums, tuple(map(flat, (dx, dw, db))))
    return dx, dw, db


def forward_two(
    x: Tensor, first: Convolution, second: Convolution, keep: bool = True
) -> tuple[Tensor, Tensor]:
    """Runs two consecutive blocks: threads start once, and a group's maps stay in the cache.

    Args:
        x: (B, C, H, W) float32.
        first: the block that reads x.
        second: the block that reads the first one's maps.
        keep: whether `backward_two` will be called.

    Returns:
        y (B, M, R, S) of the second, and what `backward_two` needs.

    Raises:
        TypeError: an argument of another type.
        ValueError: shapes that do not fit, connections of maps that do not exist.
    """
    groups = -(-len(x) // LANES)
    threads = threads_for(groups)
    pairs, outs = _memory(x, first, second, threads, backward=False)
    shape, shape2 = pairs.first.shape, pairs.second.shape
    y = x.new_empty(len(x), shape2.outputs, shape2.pooled_rows, shape2.pooled)
    # One allocation: malloc then keeps the memory, and the next iteration finds its pages mapped.
    state = x.new_empty((groups if keep else threads) * kept(shape, shape2))
    per_maps = averaging(flat(first.bias)), averaging(flat(second.bias))
    data = flat(x), len(x), pairs, _filters(first, second), *per_maps, keep, flat(state)
    share_out(parallel.forward_two, threads, *data, outs, flat(y))
    return y, state


def backward_two(
    grad: Tensor, x: Tensor, first: Convolution, second: Convolution, state: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of `forward_two`'s first result; arguments and errors as there.

    Returns:
        The gradients at weight and bias of the first block, and of the second.
    """
    groups = -(-len(x) // LANES)
    chunks = chunks_of(groups)
    threads = threads_for(chunks)
    pairs, outs = _memory(x, first, second, threads, backward=True)
    shape, shape2 = pairs.first.shape, pairs.second.shape
    pooled = (len(x), shape2.outputs, shape2.pooled_rows, shape2.pooled)
    doors.check_tensor("grad", grad, torch.float32, pooled, x.device)
    doors.check_tensor("state", state, torch.float32, (groups * kept(shape, shape2),), x.device)
    gradients = [
        torch.empty_like(parameter, memory_format=torch.contiguous_format)
        for parameter in (first.weight, first.bias, second.weight, second.bias)
    ]
    taps = pairs.first.taps, pairs.second.taps
    sums = new_sums(threads, chunks, len(first.bias), taps[0], len(second.bias), taps[1])
    data = flat(grad), flat(x), len(x), pairs, _filters(first, second), flat(state), outs
    share_out(parallel.backward_two, threads, *data, *sums, Filters(*map(flat, gradients)))
    dw, db, dw2, db2 = gradients
    return dw, db, dw2, db2


def shapes_of(
    x: Tensor, first: Convolution, second: Convolution
) -> tuple[Shape, Table, Shape, Table]:
    """Sizes and connections of two consecutive blocks, the first of which reads images like x.

    Raises:
        TypeError: an argument of another type.
        ValueError: shapes that do not fit, connections of maps that do not exist.
    """
    doors.check_conv_pool(x, *first)
    shape = shape_of(*x.shape[1:], first.padding, len(first.bias))
    between = x.new_empty(0, shape.outputs, shape.pooled_rows, shape.pooled)
    doors.check_conv_pool(between, *second)
    return (
        shape,
        table_of(first.connections, shape.outputs, shape.maps),
        shape_of(*between.shape[1:], second.padding, len(second.bias)),
        table_of(second.connections, len(second.bias), shape.outputs),
    )


def _memory(
    x: Tensor, first: Convolution, second: Convolution, threads: int, *, backward: bool
) -> tuple[Pair, np.ndarray[Any, Any]]:
    """Two blocks with memory for every thread, and memory for a group of the second one's maps."""
    shape, table, shape2, table2 = shapes_of(x, first, second)
    pairs = Pair(
        Layer(shape, table, new_taps(flat(first.weight))),
        Layer(shape2, table2, new_taps(flat(second.weight))),
        new_scratches(shape, threads, backward),
        new_scratches(shape2, threads, backward),
    )
    return pairs, zeros(threads, shape2.features * LANES)


def _filters(first: Convolution, second: Convolution) -> Filters:
    return Filters(*map(flat, (first.weight, first.bias, second.weight, second.bias)))
