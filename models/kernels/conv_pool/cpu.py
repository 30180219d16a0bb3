"""The fused block on the CPU, one block or two in a row, for torch's tensors.

Compiled by Numba, eight images to a vector, groups of them over threads; `compiled.py` keeps the
machine code, so that only the first run of a machine waits for it.

Shapes: B images, G groups in the layout of `lanes.py`, C input maps, M output maps, P connections,
H W input pixels, R S pooled pixels (so 2R 2S convolved ones).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.kernels import doors
from models.kernels.conv_pool import parallel
from models.kernels.conv_pool.memory import Shape, Table, shape_of, table_of
from models.kernels.conv_pool.pair import Filters, kept
from models.kernels.lanes import LANES
from models.kernels.threads import use_threads


class Convolution(NamedTuple):
    """What one block computes with; `forward` says more."""

    weight: Tensor
    bias: Tensor
    connections: Tensor
    padding: int


def flat(x: Tensor) -> np.ndarray[Any, Any]:
    """The numbers of a tensor in a row, as compiled code takes them."""
    # ravel, not reshape(-1): that leaves the strides of 0 of an expanded tensor as they are.
    array: np.ndarray[Any, Any] = x.detach().numpy().ravel()
    return array


def forward(
    x: Tensor, weight: Tensor, bias: Tensor, connections: Tensor, padding: int
) -> tuple[Tensor, Tensor]:
    """Runs the block.

    Args:
        x: (G, C, H, W, 8) float32.
        weight: (P, 5, 5).
        bias: (M,).
        connections: (P, 2), sorted by output map.
        padding: zeros on each side of H and W.

    Returns:
        y (G, M, R, S, 8), and its derivative by the sums before the tanh (G, M, 2R, 2S, 8).

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
    arrays = (flat(weight), flat(bias))
    parallel.forward(
        flat(x), groups, shape, table, *arrays, use_threads(groups), flat(slope), flat(y)
    )
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
        At x (empty unless `want_input`), weight and bias.
    """
    doors.check_conv_pool_gradient(grad, x, weight, connections, padding, slope, doors.GROUPS)
    groups, maps, height, width, _ = x.shape
    outputs = slope.shape[1]
    dx = x.new_empty(x.shape if want_input else 0)
    dw = torch.empty_like(weight, memory_format=torch.contiguous_format)
    db = x.new_empty(outputs)
    parallel.backward(
        flat(grad),
        flat(x),
        groups,
        shape_of(maps, height, width, padding, outputs),
        table_of(connections, outputs, maps),
        flat(weight),
        flat(slope),
        use_threads(groups),
        want_input,
        flat(dx),
        flat(dw),
        flat(db),
    )
    return dx, dw, db


def forward_two(
    x: Tensor, first: Convolution, second: Convolution, keep: bool = True
) -> tuple[Tensor, Tensor]:
    """Runs two blocks in a row: one start of the threads, and a group's maps stay in the cache.

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
    blocks = shapes_of(x, first, second)
    shape, _, shape2, _ = blocks
    groups = -(-len(x) // LANES)
    threads = use_threads(groups)
    y = x.new_empty(len(x), shape2.outputs, shape2.pooled_rows, shape2.pooled)
    # One piece: so malloc keeps the memory, and the next iteration finds its pages mapped.
    state = x.new_empty((groups if keep else threads) * kept(shape, shape2))
    filters = _filters(first, second)
    parallel.forward_two(flat(x), len(x), *blocks, filters, threads, keep, flat(state), flat(y))
    return y, state


def backward_two(
    grad: Tensor, x: Tensor, first: Convolution, second: Convolution, state: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of `forward_two`'s first result; arguments and errors as there.

    Returns:
        At the weight and the bias of the first, and of the second block.
    """
    blocks = shapes_of(x, first, second)
    shape, _, shape2, _ = blocks
    groups = -(-len(x) // LANES)
    pooled = (len(x), shape2.outputs, shape2.pooled_rows, shape2.pooled)
    doors.check_tensor("grad", grad, torch.float32, pooled, x.device)
    doors.check_tensor("state", state, torch.float32, (groups * kept(shape, shape2),), x.device)
    gradients = [
        torch.empty_like(parameter, memory_format=torch.contiguous_format)
        for parameter in (first.weight, first.bias, second.weight, second.bias)
    ]
    parallel.backward_two(
        flat(grad),
        flat(x),
        len(x),
        *blocks,
        _filters(first, second),
        use_threads(groups),
        flat(state),
        Filters(*map(flat, gradients)),
    )
    dw, db, dw2, db2 = gradients
    return dw, db, dw2, db2


def shapes_of(
    x: Tensor, first: Convolution, second: Convolution
) -> tuple[Shape, Table, Shape, Table]:
    """Sizes and connections of two blocks in a row, of which the first reads images like x.

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


def _filters(first: Convolution, second: Convolution) -> Filters:
    return Filters(*map(flat, (first.weight, first.bias, second.weight, second.bias)))
