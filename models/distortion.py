"""Small random distortions of training images, drawn anew in each iteration."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.kernels.distortion import OF_MAP, WAVES, Distortion, waves

Counts = np.ndarray[Any, np.dtype[np.int64]]


def draw(
    seed: int, iteration: int, totals: Counts, starts: Counts, sizes: Counts, count: int
) -> Tensor:
    """Random numbers from -1 to 1 for the images of K mini-batches, one after the other.

    Those of an image depend on the seed, the iteration and its place in the mini-batch alone:
    nothing has to be kept for a continued run, and neither blocks nor ranks change anything.

    Args:
        seed: of the run.
        iteration: of the first mini-batch, counted from 0.
        totals: (K,) images of each mini-batch, over all ranks.
        starts: (K,) which of them is the first that is asked for.
        sizes: (K,) how many are.
        count: numbers for each image, `Distortion.numbers`.

    Returns:
        (n, count) float32, on the CPU.
    """
    numbers = []
    for k, (total, start, size) in enumerate(zip(totals, starts, sizes, strict=True)):
        # The last numbers set these streams apart from those of the data's order.
        stream = np.random.default_rng((seed, iteration + k, 0, 1))
        numbers.append(stream.random((total, count), np.float32)[start : start + size])
    return 2 * torch.from_numpy(np.concatenate(numbers)) - 1


def maps_of(distortion: Distortion, numbers: Tensor, size: int) -> Tensor:
    """Maps from output to input coordinates, (B, 2, 3), as `F.affine_grid` wants them.

    Args:
        distortion: how far they may go.
        numbers: (B, OF_MAP or more) from -1 to 1.
        size: height and width of an image, which the grid calls -1 to 1.
    """
    angle = numbers[:, 0] * math.radians(distortion.rotation)
    height, width = 1 + distortion.scale * numbers[:, 1], 1 + distortion.scale * numbers[:, 2]
    shear = distortion.shear * numbers[:, 3]
    right, down = (distortion.shift * numbers[:, 4:OF_MAP]).mul(2 / size).unbind(1)
    cos, sin = angle.cos(), angle.sin()
    # Rotation times [[width, shear], [0, height]], and the shift.
    rows = (
        (cos * width, cos * shear - sin * height, right),
        (sin * width, sin * shear + cos * height, down),
    )
    return torch.stack([torch.stack(row, 1) for row in rows], 1)


def bends_of(distortion: Distortion, numbers: Tensor, size: int) -> Tensor:
    """Pixels that each place is moved sideways and down, (B, size, size, 2).

    Args:
        distortion: how far on average.
        numbers: (B, `distortion.numbers`) from -1 to 1.
        size: height and width of an image.
    """
    table = waves(size, numbers.dtype, numbers.device)
    drawn = numbers[:, OF_MAP:].view(-1, 2, WAVES, WAVES)
    return distortion.elastic * (table.T @ drawn @ table).movedim(1, -1)


def distort(images: Tensor, distortion: Distortion, numbers: Tensor) -> Tensor:
    """Draws each image where its random numbers say, between pixels in straight lines.

    Args:
        images: (B, H, H), floating; zeros are around them.
        distortion: how far it may go.
        numbers: (B, `distortion.numbers`) from -1 to 1.
    """
    x = images.unsqueeze(1)
    maps = maps_of(distortion, numbers, images.shape[-1]).to(x)
    grid = F.affine_grid(maps, list(x.shape), align_corners=False)
    if distortion.elastic:
        size = images.shape[-1]
        grid = grid + 2 / size * bends_of(distortion, numbers, size).to(grid)
    return F.grid_sample(x, grid, mode="bilinear", align_corners=False).squeeze(1)
