"""Checks of one half of a data set, training or test."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def check(
    names: list[str],
    images: Tensor,
    labels: Tensor,
    known: Sequence[int],
    size: tuple[int, int],
) -> None:
    """Checks the images and labels of one half of a data set.

    Args:
        names: names of the files of images and of labels.
        images: (N, H, W).
        labels: (N,).
        known: the allowed labels.
        size: the required H and W.

    Raises:
        ValueError: there are no images, their size is wrong, images and labels differ in number,
            or a label is not allowed.
    """
    if not images.numel():
        raise ValueError(f"{names[0]} holds no images")
    if images.shape[1:] != size:
        raise ValueError(f"{names[0]} holds {amount(images)}, expected {size[0]}x{size[1]}")
    if len(labels) != len(images):
        raise ValueError(f"{names[1]} holds {amount(labels)} for {amount(images)}")
    wrong = ~torch.isin(labels, torch.tensor(known, dtype=torch.uint8))
    if wrong.any():
        position = int(wrong.nonzero()[0])
        among = f"{min(known)} to {max(known)}"
        raise ValueError(f"label {position} of {names[1]} is {labels[position]}, expected {among}")


def amount(array: Tensor) -> str:
    """Describes the number and kind of images (N, H, W) or labels (N,)."""
    if array.dim() == 1:
        return f"{len(array):,} labels"
    return f"{len(array):,} images of {array.shape[1]}x{array.shape[2]}"
