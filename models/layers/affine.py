"""Small random distortions of a batch of images, all at once."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


class Affine(NamedTuple):
    """How far images are distorted at most; each image draws its own values, uniformly.

    LeCun et al. 1998, III.A distort their training images likewise: shift, scale, squeeze, shear.
    """

    rotation: float
    """Degrees, either way."""
    scale: float
    """Of height and width apart: factors from 1 - scale to 1 + scale."""
    shear: float
    """Columns moved sideways per row."""
    shift: float
    """Pixels, in both directions."""


def draw(limits: Affine, count: int, size: int, rng: np.random.Generator) -> Tensor:
    """Random maps from output to input coordinates, (count, 2, 3), as `F.affine_grid` wants them.

    Args:
        limits: how far they may go.
        count: of images.
        size: height and width of an image, which the grid calls -1 to 1.
        rng: of NumPy, so that every device gets the same maps.
    """
    uniform = 2 * torch.from_numpy(rng.random((count, 6), np.float32)) - 1
    angle = uniform[:, 0] * math.radians(limits.rotation)
    height, width = 1 + limits.scale * uniform[:, 1], 1 + limits.scale * uniform[:, 2]
    shear = limits.shear * uniform[:, 3]
    right, down = (limits.shift * uniform[:, 4:]).mul(2 / size).unbind(1)
    cos, sin = angle.cos(), angle.sin()
    # Rotation times [[width, shear], [0, height]], and the shift.
    rows = (
        (cos * width, cos * shear - sin * height, right),
        (sin * width, sin * shear + cos * height, down),
    )
    return torch.stack([torch.stack(row, 1) for row in rows], 1)


def distort(images: Tensor, maps: Tensor) -> Tensor:
    """Draws each image where its map says, between pixels in straight lines, zeros outside.

    Args:
        images: (B, C, H, W), floating.
        maps: (B, 2, 3), see `draw`.
    """
    grid = F.affine_grid(maps.to(images), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", align_corners=False)
