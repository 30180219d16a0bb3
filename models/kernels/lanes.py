"""The layout of the CPU kernels: L images are interleaved, so one vector holds a pixel of each.

L is eight or sixteen, the width of the processor's vectors. A batch of images (B, C, H, W) becomes
groups (G, C, H, W, L) with G = ceil(B / L); the last group is filled up with zeros.
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
"""LLVM's names of processors with full 512-bit units, and of Zen 4, which joins two of 256 bits.

Zen 4 does not compute faster with 512 bits, but decodes half as many instructions. Intel's laptop
processors with AVX-512 are left out, since they have one such unit only.
"""

MOST = 16
"""Largest number of lanes on any machine"""


def lanes_on(processor: str, features: Mapping[str, bool]) -> int:
    """The number of floats in a vector, by LLVM's names of a processor and of its features.

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
    except Exception:  # No LLVM, or one that does not know the machine: nothing is compiled.
        return 8


LANES = _lanes_here()
"""L, the number of lanes on this machine"""


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
    """An uninitialised float32 array in which no vector crosses a boundary of cache lines.

    NumPy does not align its memory so: a training iteration took 6 to 8 % longer with it.
    """
    # Torch aligns its memory to cache lines.
    return torch.empty(shape, dtype=torch.float32, device="cpu").numpy()


def zeros(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The same as `empty`, filled with zeros."""
    found = empty(*shape)
    found.fill(0)
    return found
