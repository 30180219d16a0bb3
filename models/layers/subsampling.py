"""The subsampling layer of 1998."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Subsampling(nn.Module):
    """Sums of 2x2 pixels, times a coefficient, plus a bias; both learnt, one pair for each map.

    LeCun et al. 1998, II.B, on S2. Two parameters and 5 connections for each output pixel.

    Args:
        maps: number of maps.
    """

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(maps))
        self.bias = nn.Parameter(torch.empty(maps))

    def forward(self, x: Tensor) -> Tensor:
        """(B, maps, H, W) -> (B, maps, H // 2, W // 2)."""
        # Not divisor_override=1, which torch's export to ONNX drops.
        sums = 4 * F.avg_pool2d(x, 2)
        return sums * self.weight[:, None, None] + self.bias[:, None, None]
