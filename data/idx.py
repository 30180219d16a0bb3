"""The files of MNIST and of sets in its layout."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def parse_idx(content: bytes, dimensions: int) -> Tensor:
    """Decodes an IDX file of unsigned bytes (format: http://yann.lecun.com/exdb/mnist).

    Args:
        content: the whole file, uncompressed.
        dimensions: how many dimensions it must have.

    Returns:
        A uint8 tensor of the shape that the header states.

    Raises:
        ValueError: another magic number, or a size that the header does not state.
    """
    magic = bytes([0, 0, 8, dimensions])
    if content[:4] != magic:
        raise ValueError(
            f"no IDX file of {dimensions} dimensions (magic number {content[:4].hex()}, "
            f"expected {magic.hex()})"
        )
    start = 4 + 4 * dimensions
    shape = [int.from_bytes(content[i : i + 4], "big") for i in range(4, start, 4)]
    if len(content) != (expected := start + math.prod(shape)):
        what = "cut off" if len(content) < expected else "too long"
        raise ValueError(
            f"an IDX file, {what}: {len(content):,} bytes, its header says {expected:,}"
        )
    if 0 in shape:
        if math.prod(filter(None, shape)) >= 2**63:  # more than torch can count
            raise ValueError(f"an IDX file of nothing, its header says {shape}")
        return torch.empty(shape, dtype=torch.uint8)
    # A bytearray, since torch warns of tensors over read-only memory.
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=start).view(shape)
