"""The block from its definition: one small convolution for each output map.

Slow and obvious. Every other version is tested against it.
Shapes: B batch, C input maps, M output maps, P connections, H W input and H' W' output pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def partial_conv2d(
    x: Tensor, weight: Tensor, bias: Tensor, connections: Tensor, padding: int = 0
) -> Tensor:
    """Convolves each output map from the input maps connected to it (LeCun et al. 1998, II.B).

    Args:
        x: (B, C, H, W).
        weight: (P, k, k), a kernel for each connection.
        bias: (M,).
        connections: (P, 2) int64, rows (output map, input map) in the order of `weight`.
        padding: zeros added on each side of H and W.

    Returns:
        (B, M, H', W').
    """
    maps = []
    for output in range(len(bias)):
        (chosen,) = torch.nonzero(connections[:, 0] == output, as_tuple=True)
        inputs = x[:, connections[chosen, 1]]
        kernel = weight[chosen].unsqueeze(0)
        maps.append(F.conv2d(inputs, kernel, bias[output : output + 1], padding=padding))
    return torch.cat(maps, dim=1)


def conv_pool(
    x: Tensor, weight: Tensor, bias: Tensor, connections: Tensor, padding: int = 0
) -> Tensor:
    """Partial convolution, tanh, 2x2 average pool, tanh: a C layer and its S layer.

    Arguments as in `partial_conv2d`.

    Returns:
        (B, M, H' // 2, W' // 2).
    """
    sums = partial_conv2d(x, weight, bias, connections, padding)
    return F.avg_pool2d(sums.tanh(), 2).tanh()
