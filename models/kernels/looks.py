"""What integers a tensor holds, and how it goes to a device, without a wait in a training.

On a CPU integers are looked at in every call. Elsewhere they are looked at once for each state of a
tensor, and not at all where `follow` says what they were before they went there.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

Extremes = tuple[int, ...]
"""The least and the greatest; nothing of an empty tensor."""

PAGEABLE = 2**16
"""Bytes; of larger copies from memory that is not pinned CUDA first lets its stream run empty (CUDA
Runtime API, API synchronization behavior)."""

_known: WeakIdKeyDictionary = WeakIdKeyDictionary()
"""From tensors to the state that was looked at, and what was seen."""


def extremes(values: Tensor) -> Extremes:
    """The least of some integers and the greatest.

    >>> extremes(torch.tensor([3, 1, 2]))
    (1, 3)
    """
    if values.device.type == "cpu" or values.is_inference():  # torch does not count its states
        return _look(values)
    whole = _whole(values)
    if whole not in _known or _known[whole][0] != whole._version:
        _known[whole] = whole._version, _look(values)
    seen: Extremes = _known[whole][1]
    return seen


def follow(moved: Tensor, values: Tensor) -> None:
    """Looks at integers where they are, for a copy of them on a device where that is a wait."""
    if moved is not values and not moved.is_inference():
        _known[_whole(moved)] = moved._version, extremes(values)


def _look(values: Tensor) -> Extremes:
    return tuple(torch.stack(torch.aminmax(values)).tolist()) if values.numel() else ()


def _whole(values: Tensor) -> Tensor:
    """What a tensor shows in another shape, since that is the one that stays."""
    base = values._base
    return values if base is None or base.numel() != values.numel() else base


def send(tensor: Tensor, to: torch.device) -> Tensor:
    """The tensor on a device; to a GPU it is on its way, behind all that the GPU has to do."""
    # The other way round nobody would know when it has come; and MPS takes what is not there yet.
    is_sent = tensor.device.type == "cpu" and to.type == "cuda"
    if is_sent and tensor.nbytes > PAGEABLE and torch.cuda.is_available():
        tensor = tensor.pin_memory()
    return tensor.to(to, non_blocking=is_sent)
