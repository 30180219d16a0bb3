"""The layout of the CPU kernel: L images side by side, so one vector holds a pixel of each.

L is eight or sixteen, as the processor's vectors are. A batch of images (B, C, H, W) becomes groups
(G, C, H, W, L) with G = ceil(B / L); the last group is filled up with zeros.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

WIDE = {
    "skylake-avx512",
    "cascadelake",
    "cooperlake",
    "icelake-server",
    "sapphirerapids",
    "emeraldrapids",
    "graniterapids",
    "graniterapids-d",
    "znver4",
    "znver5",
}
"""LLVM's names of processors with full units of 512 bits, and of Zen 4, which joins two of 256.

That one computes no more in them at a time, but it has half as many instructions to read. Other
processors of Intel with AVX-512, for laptops, have one such unit.
"""

MOST = 16
"""Lanes on any machine"""


def lanes_on(processor: str, features: Mapping[str, bool]) -> int:
    """How many floats a vector has, by LLVM's names of a processor and of what it can.

    >>> lanes_on("znver5", {"avx512f": True})
    16
    >>> lanes_on("tigerlake", {"avx512f": True})
    8
    >>> lanes_on("znver5", {"avx512f": False})  # as a virtual machine may have it
    8
    """
    return MOST if processor in WIDE and features.get("avx512f") else 8


def _lanes_here() -> int:
    try:
        from llvmlite import binding

        return lanes_on(binding.get_host_cpu_name(), binding.get_host_cpu_features())
    except Exception:  # Without LLVM, or one that does not know the machine: nothing is compiled.
        return 8


LANES = _lanes_here()
"""L"""


def to_lanes(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (G, C, H, W, L), contiguous.

    Raises:
        ValueError: x has another number of axes.
    """
    if x.dim() != 4:
        raise ValueError(f"expected images of shape (B, C, H, W), got {tuple(x.shape)}")
    missing = -len(x) % LANES
    if missing:
        x = F.pad(x, (0, 0, 0, 0, 0, 0, 0, missing))
    groups = x.reshape(len(x) // LANES, LANES, *x.shape[1:])
    return groups.permute(0, 2, 3, 4, 1).contiguous()


def from_lanes(x: Tensor, batch: int) -> Tensor:
    """(G, C, H, W, L) -> (batch, C, H, W): undoes `to_lanes`."""
    return x.permute(0, 4, 1, 2, 3).flatten(0, 1)[:batch]


def empty(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Float32 numbers of that shape, for vectors: none of those lies across two lines of the cache.

    NumPy's own memory begins anywhere: a training iteration took 6 to 8 % longer there.
    """
    # Torch's begins at a line.
    return torch.empty(shape, dtype=torch.float32, device="cpu").numpy()


def zeros(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """As `empty`, each of them 0."""
    found = empty(*shape)
    found.fill(0)
    return found
