"""The block with one dense convolution, whose weights are 0 where nothing is connected.

Any device, any floating type; torch.compile and torch.export see ordinary operators.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def dense(weight: Tensor, connections: Tensor, outputs: int, inputs: int) -> Tensor:
    """Weights (P, k, k) of a table's connections -> (outputs, inputs, k, k)."""
    zeros = weight.new_zeros(outputs, inputs, *weight.shape[1:])
    return zeros.index_put(connections.unbind(1), weight)


def partial_conv2d(
    x: Tensor, weight: Tensor, bias: Tensor, connections: Tensor, padding: int = 0
) -> Tensor:
    """As `reference.partial_conv2d`: x (B, C, H, W), weight (P, k, k) -> (B, M, H', W')."""
    kernels = dense(weight, connections, len(bias), x.shape[1])
    return F.conv2d(x, kernels, bias, padding=padding)


def conv_pool(
    x: Tensor, weight: Tensor, bias: Tensor, connections: Tensor, padding: int = 0
) -> Tensor:
    """As `reference.conv_pool`: x (B, C, H, W), weight (P, k, k) -> (B, M, H' // 2, W' // 2)."""
    sums = partial_conv2d(x, weight, bias, connections, padding)
    return F.avg_pool2d(sums.tanh(), 2).tanh()
