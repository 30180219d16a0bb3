"""Extremes of integer tensors, and copies to a device, without synchronising during a training.

On a CPU the integers are read in every call. On other devices they are read once for each version
of a tensor, and not at all if `follow` has recorded them before the copy.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

Extremes = tuple[int, ...]
"""The least and the greatest; empty for an empty tensor."""

PAGEABLE = 2**16
"""Bytes; of larger copies from memory that is not pinned CUDA first lets its stream run empty (CUDA
Runtime API, API synchronization behavior)."""

_known: WeakIdKeyDictionary = WeakIdKeyDictionary()
"""Maps tensors to the version that was read, and to its extremes."""


def extremes(values: Tensor) -> Extremes:
    """The least and the greatest of some integers.

    >>> extremes(torch.tensor([3, 1, 2]))
    (1, 3)
    """
    if values.device.type == "cpu" or values.is_inference():  # it has no version
        return _look(values)
    whole = _whole(values)
    if whole not in _known or _known[whole][0] != whole._version:
        _known[whole] = whole._version, _look(values)
    seen: Extremes = _known[whole][1]
    return seen


def follow(moved: Tensor, values: Tensor) -> None:
    """Records the extremes of values on the host for their copy, where reading would wait."""
    if moved is not values and not moved.is_inference():
        _known[_whole(moved)] = moved._version, extremes(values)


def _look(values: Tensor) -> Extremes:
    return tuple(torch.stack(torch.aminmax(values)).tolist()) if values.numel() else ()


def _whole(values: Tensor) -> Tensor:
    """The tensor that a view shows in another shape, since the view itself is short-lived."""
    base = values._base
    return values if base is None or base.numel() != values.numel() else base


def send(tensor: Tensor, to: torch.device) -> Tensor:
    """Copies a tensor to a device; to a GPU asynchronously, in the order of its stream."""
    # Not to the host, which would not know when the copy is complete; nor to MPS, which reads it
    # too early.
    is_sent = tensor.device.type == "cpu" and to.type == "cuda"
    if is_sent and tensor.nbytes > PAGEABLE and torch.cuda.is_available():
        tensor = tensor.pin_memory()
    return tensor.to(to, non_blocking=is_sent)
