"""Scales images of any size to that of the networks' inputs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SIZE = 28
"""Height and width of MNIST's images, and of the images of every data module."""

MOST_PIXELS = 16_000_000  # at a time, in floating point


def scaled(images: Tensor) -> Tensor:
    """Scales images in proportion to fit `SIZE`, and centres them.

    The rest is filled with the median of the image's border. Images of `SIZE` are unchanged.

    Args:
        images: (N, H, W) uint8.

    Returns:
        (N, SIZE, SIZE) uint8.
    """
    height, width = images.shape[1:]
    if (height, width) == (SIZE, SIZE):
        return images
    pieces = torch.split(images, max(1, MOST_PIXELS // (height * width)))
    return torch.cat([_scaled(piece) for piece in pieces])


def _scaled(images: Tensor) -> Tensor:
    shape = images.shape[1:]
    height, width = (max(1, round(SIZE * size / max(shape))) for size in shape)
    small = F.interpolate(
        images.unsqueeze(1).float(), (height, width), mode="bilinear", antialias=True
    )
    borders = images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]
    ground = torch.cat(borders, 1).median(1).values.float()
    framed = ground.view(-1, 1, 1).repeat(1, SIZE, SIZE)
    top, left = (SIZE - height) // 2, (SIZE - width) // 2
    framed[:, top : top + height, left : left + width] = small.squeeze(1)
    return framed.round().to(torch.uint8)
