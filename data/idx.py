"""Reads IDX files, the format of MNIST and of data sets in its layout."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

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
        ValueError: the magic number is wrong, or the size is not that of the header.
    """
    shape = shape_of(content, dimensions)
    if len(content) != (expected := header_bytes(dimensions) + math.prod(shape)):
        what = "cut off" if len(content) < expected else "too long"
        raise ValueError(
            f"an IDX file, {what}: {len(content):,} bytes, its header says {expected:,}"
        )
    if 0 in shape:
        if math.prod(filter(None, shape)) >= 2**63:  # more than torch can count
            raise ValueError(f"an IDX file of nothing, its header says {shape}")
        return torch.empty(shape, dtype=torch.uint8)
    # A bytearray, since torch warns of tensors over read-only memory.
    start = header_bytes(dimensions)
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=start).view(shape)


def header_bytes(dimensions: int) -> int:
    """Returns the number of bytes before the first value."""
    return 4 + 4 * dimensions


def shape_of(content: bytes, dimensions: int) -> list[int]:
    """Returns the shape in the header of an IDX file of unsigned bytes.

    Args:
        content: the file, or at least its header.
        dimensions: how many dimensions it must have.

    Raises:
        ValueError: the magic number is wrong, or the header is cut off.
    """
    magic = bytes([0, 0, 8, dimensions])
    if content[:4] != magic:
        raise ValueError(
            f"no IDX file of {dimensions} dimensions (magic number {content[:4].hex()}, "
            f"expected {magic.hex()})"
        )
    if len(content) < header_bytes(dimensions):
        raise ValueError(f"an IDX file, cut off in its header: {len(content)} bytes")
    return [int.from_bytes(content[4 * i : 4 * i + 4], "big") for i in range(1, dimensions + 1)]


def unpacked(path: Path, length: int = -1) -> bytes:
    """Returns the content of a file or its first bytes, decompressed if its name ends in .gz.

    Raises:
        ValueError: the file cannot be read, or is not a complete gzip file.
    """
    try:
        if path.is_fifo():  # reading it would wait for a writer
            raise ValueError("no file, but a pipe")
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return file.read(length)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"no whole gzip file ({error})") from error
    except OSError as error:
        raise ValueError(f"no file to read ({error.strerror})") from error
