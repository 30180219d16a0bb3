"""Scales and centres the ink of one digit as in MNIST."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from data.images.arrays import Grey
from data.scaling import SIZE

BOX = 20


def like_mnist(ink: Grey) -> Tensor:
    """Scales and centres light ink on a dark ground as in MNIST (LeCun et al. 1998, III.A).

    The ink's bounding box is scaled to fit 20x20 pixels in proportion, and its centre of mass is
    placed in the middle of 28x28.

    Args:
        ink: (H, W), 0 on paper and above 0 on ink, of any size and range; not all 0.

    Returns:
        (28, 28) uint8.
    """
    rows, columns = np.flatnonzero((ink > 0).any(1)), np.flatnonzero((ink > 0).any(0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    scale = BOX / max(bottom - top, right - left)
    height, width = (max(1, round(scale * n)) for n in (bottom - top, right - left))
    box = Image.fromarray(np.ascontiguousarray(ink[top:bottom, left:right], np.float32))
    small = np.asarray(box.resize((width, height), Image.Resampling.BILINEAR))
    small = np.clip(small / small.max(), 0, 1)  # thin strokes fade when made smaller
    framed = np.zeros((SIZE, SIZE), np.float32)
    y, x = (_offset(small.sum(axis), size) for axis, size in ((1, height), (0, width)))
    framed[y : y + height, x : x + width] = small
    return torch.from_numpy(np.rint(255 * framed).astype(np.uint8))


def _offset(mass: Grey, size: int) -> int:
    """Returns where the box begins if its centre of mass is at pixel 14, as in MNIST."""
    centre = float((mass * np.arange(size)).sum() / mass.sum())
    return min(max(0, round(SIZE / 2 - centre)), SIZE - size)
