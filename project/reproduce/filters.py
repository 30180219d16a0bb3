"""Convolutions whose weights are given, not learnt: differences, means, luma.

torch's convolution does not flip its kernel: output[i, j] = sum of kernel[a, b] x[i + a, j + b].
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Weights of red, green and blue in the luma of ITU-R BT.601.
LUMA = (0.299, 0.587, 0.114)


def fixed(weight: Tensor, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """Returns a convolution without bias whose weight is not trained.

    Args:
        weight: (output channels, input channels / groups, kernel height, kernel width).
        stride: stride of the kernel, in both directions.
        groups: as in `nn.Conv2d`.
    """
    outputs, inputs, height, width = weight.shape
    size = (height, width)
    layer = nn.Conv2d(inputs * groups, outputs, size, stride, groups=groups, bias=False)
    layer.weight = nn.Parameter(weight, requires_grad=False)
    return layer


def row_difference() -> nn.Conv2d:
    """X[i + 1, j] - X[i, j]: (B, 1, H, W) -> (B, 1, H - 1, W).

    >>> row_difference()(torch.tensor([[[[1.0], [5.0], [7.0]]]])).flatten()
    tensor([4., 2.])
    """
    return fixed(torch.tensor([-1.0, 1.0]).view(1, 1, 2, 1))


def column_difference() -> nn.Conv2d:
    """X[i, j + 1] - X[i, j]: (B, 1, H, W) -> (B, 1, H, W - 1).

    >>> column_difference()(torch.tensor([[[[1.0, 5.0, 7.0]]]])).flatten()
    tensor([4., 2.])
    """
    return fixed(torch.tensor([-1.0, 1.0]).view(1, 1, 1, 2))


def mean(size: int, channels: int = 1) -> nn.Conv2d:
    """The mean of each size x size tile: (B, C, H, W) -> (B, C, H // size, W // size).

    It is `nn.AvgPool2d(size)` as a depthwise convolution: all weights are 1 / size^2, each channel
    is read by itself.

    >>> mean(2)(torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]])).item()
    3.0
    """
    return fixed(torch.full((channels, 1, size, size), 1 / size**2), stride=size, groups=channels)


def luma() -> nn.Conv2d:
    """The brightness of a colour image, as a 1x1 convolution: (B, 3, H, W) -> (B, 1, H, W)."""
    return fixed(torch.tensor(LUMA).view(1, 3, 1, 1))
