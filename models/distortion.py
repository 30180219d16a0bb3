"""Small random distortions of training images, drawn anew in each iteration."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.kernels.distortion import OF_MAP, WAVES, Distortion, spectrum

Counts = np.ndarray[Any, np.dtype[np.int64]]


def draw(
    seed: int, iteration: int, totals: Counts, starts: Counts, sizes: Counts, count: int
) -> Tensor:
    """Random numbers from -1 to 1 for the images of K consecutive mini-batches.

    Those of an image depend only on the seed, the iteration, its place in the mini-batch and
    `count`: a continued run needs no saved state, and neither blocks nor ranks change anything.

    Args:
        seed: seed of the run.
        iteration: index of the first mini-batch, counted from 0.
        totals: (K,) images of each mini-batch, over all ranks.
        starts: (K,) index of the first image wanted of each mini-batch.
        sizes: (K,) images wanted of each mini-batch.
        count: numbers for each image, `Distortion.numbers`.

    Returns:
        (n, count) float32, on the CPU.
    """
    numbers = []
    for k, (total, start, size) in enumerate(zip(totals, starts, sizes, strict=True)):
        # The trailing numbers separate these streams from those of the data's order.
        stream = np.random.default_rng((seed, iteration + k, 0, 1))
        numbers.append(stream.random((total, count), np.float32)[start : start + size])
    return 2 * torch.from_numpy(np.concatenate(numbers)) - 1


def maps_of(distortion: Distortion, numbers: Tensor, height: int, width: int) -> Tensor:
    """Affine maps from output to input coordinates, (B, 2, 3), for `F.affine_grid`.

    Args:
        distortion: limits of the maps.
        numbers: (B, OF_MAP or more) from -1 to 1.
        height: height of an image; in the grid's coordinates it is -1 to 1.
        width: width of an image, likewise.
    """
    angle = numbers[:, 0] * math.radians(distortion.rotation)
    tall, wide = 1 + distortion.scale * numbers[:, 1], 1 + distortion.scale * numbers[:, 2]
    shear = distortion.shear * numbers[:, 3]
    right, down = (distortion.shift * numbers[:, 4:OF_MAP]).unbind(1)
    cos, sin = angle.cos(), angle.sin()
    # Rotation times [[wide, shear], [0, tall]], and the shift.
    ratio = height / width
    rows = (
        (cos * wide, ratio * (cos * shear - sin * tall), right * (2 / width)),
        (sin * wide / ratio, sin * shear + cos * tall, down * (2 / height)),
    )
    return torch.stack([torch.stack(row, 1) for row in rows], 1)


def bends_of(distortion: Distortion, numbers: Tensor, height: int, width: int) -> Tensor:
    """Elastic displacements across and down in pixels, (B, 2, height, width).

    Args:
        distortion: has their root mean square, `elastic`.
        numbers: (B, `distortion.numbers`) from -1 to 1.
        height: height of an image.
        width: width of an image.
    """
    drawn = numbers[:, OF_MAP:].view(-1, 2, WAVES, WAVES)
    return distortion.elastic * (waves_on(height, numbers).T @ drawn @ waves_on(width, numbers))


def waves_on(size: int, like: Tensor) -> Tensor:
    """The waves of `spectrum`, (WAVES, size), made on the device, since a copy would wait."""
    places = torch.arange(size, dtype=like.dtype, device=like.device) + 0.5
    return torch.stack(
        [factor * (frequency * places).cos() for factor, frequency in spectrum(size)]
    )


def distort(images: Tensor, distortion: Distortion, numbers: Tensor) -> Tensor:
    """Distorts each image by its random numbers, with bilinear interpolation.

    Args:
        images: (B, H, W), floating point; they are padded with zeros.
        distortion: limits of the distortion.
        numbers: (B, `distortion.numbers`) from -1 to 1.
    """
    if not len(images):
        return images
    # Autocast would round the coordinates to eighths of a pixel.
    with torch.autocast(images.device.type, enabled=False):
        height, width = images.shape[1:]
        shape = [len(images), 1, height, width]
        maps = maps_of(distortion, numbers, height, width).to(images)
        grid = F.affine_grid(maps, shape, align_corners=False)
        if distortion.elastic:
            across, down = bends_of(distortion, numbers, height, width).to(images).unbind(1)
            grid = grid + torch.stack([across * (2 / width), down * (2 / height)], -1)
        x = images.unsqueeze(1)
        return F.grid_sample(x, grid, mode="bilinear", align_corners=False).squeeze(1)
