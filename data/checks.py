"""What a half of a data set must be, whichever files it came from."""

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
    """Refuses what is no half of a data set.

    Args:
        names: of the files of images and of labels.
        images: (N, H, W).
        labels: (N,).
        known: the labels that there may be.
        size: H and W.

    Raises:
        ValueError: no images, another size, a label too few or one that is not known.
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
    """How many, of what: images (N, H, W) or labels (N,)."""
    if array.dim() == 1:
        return f"{len(array):,} labels"
    return f"{len(array):,} images of {array.shape[1]}x{array.shape[2]}"
