"""Small operations on pictures (H, W) that NumPy lacks: reducing, blurring, dilating, labelling."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Grey = NDArray[np.float32]
Mask = NDArray[np.bool_]


def resized(grey: Grey, height: int, width: int) -> Grey:
    """Resizes a picture; if it becomes smaller, each pixel is a mean."""
    small = height < grey.shape[0]
    method = Image.Resampling.BOX if small else Image.Resampling.BILINEAR
    return np.asarray(
        Image.fromarray(np.ascontiguousarray(grey)).resize((width, height), method), np.float32
    )


def reduced(grey: Grey, longest: int) -> Grey:
    """Shrinks a picture to at most `longest` pixels in each direction, in proportion."""
    scale = longest / max(grey.shape)
    if scale >= 1:
        return grey
    height, width = (max(1, round(scale * n)) for n in grey.shape)
    return resized(grey, height, width)


def blurred(grey: Grey, radius: int) -> Grey:
    """Returns means over squares of `2 * radius + 1` pixels, cut off at the edges."""
    if radius < 1:
        return grey
    for axis in (0, 1):
        size = grey.shape[axis]
        sums = np.concatenate([[np.zeros(grey.shape[1 - axis])], grey.swapaxes(0, axis)])
        sums = np.cumsum(sums, 0, np.float64)
        low, high = np.arange(size) - radius, np.arange(size) + radius + 1
        low, high = np.maximum(low, 0), np.minimum(high, size)
        means = (sums[high] - sums[low]) / (high - low)[:, None]
        grey = means.swapaxes(0, axis).astype(np.float32)
    return grey


def dilated(values: NDArray[Any], before: int, after: int, axis: int) -> NDArray[Any]:
    """Returns the largest value from `before` pixels before to `after` after, along an axis."""
    ends = [(0, 0), (0, 0)]
    ends[axis] = (before, after)
    lowest = False if values.dtype == np.bool_ else values.min()
    rest = np.moveaxis(np.pad(values, ends, constant_values=lowest), axis, 0)
    size, length = values.shape[axis], 1
    # Windows of 1, 2, 4, ... pixels, then two overlapping ones for the whole width.
    while 2 * length <= before + after + 1:
        rest = np.maximum(rest[:-length], rest[length:])
        length *= 2
    shift = before + after + 1 - length
    result = np.maximum(rest[:size], rest[shift : shift + size])
    return np.moveaxis(result, 0, axis)


def grown(values: NDArray[Any], radius: int) -> NDArray[Any]:
    """Returns the largest value in squares of `2 * radius + 1` pixels."""
    return dilated(dilated(values, radius, radius, 0), radius, radius, 1)


def shrunk(values: NDArray[Any], radius: int) -> NDArray[Any]:
    """Returns the smallest value in squares of `2 * radius + 1` pixels."""
    if values.dtype == np.bool_:
        return ~grown(~values, radius)
    return -grown(-values, radius)


def run_lengths(mask: Mask, axis: int) -> NDArray[np.int64]:
    """Returns the length of the run of each set pixel along an axis; 0 for the others."""
    rows = np.moveaxis(mask, axis, -1)
    padded = np.pad(rows, ((0, 0), (1, 1))).ravel()
    edges = np.flatnonzero(np.diff(padded.astype(np.int8)))
    lengths = np.zeros(padded.shape, np.int64)
    starts, ends = edges[::2] + 1, edges[1::2] + 1
    lengths[padded] = np.repeat(ends - starts, ends - starts)
    return np.moveaxis(lengths.reshape(len(rows), -1)[:, 1:-1], -1, axis)


def components(mask: Mask) -> tuple[NDArray[np.int64], int]:
    """Labels the connected components, where pixels connect by edges and corners.

    Args:
        mask: (H, W).

    Returns:
        Labels (H, W), 0 for unset pixels, else 1 to the number of components; and that number.
    """
    # A graph: runs along rows are nodes, and runs of neighbouring rows that touch are joined.
    height, width = mask.shape
    padded = np.pad(mask, ((0, 0), (1, 1))).ravel()
    edges = np.flatnonzero(np.diff(padded.astype(np.int8)))
    starts, ends = edges[::2], edges[1::2]
    pitch = width + 2
    first = np.searchsorted(ends, starts + pitch)
    last = np.searchsorted(starts, ends + pitch, side="right")
    counts = np.maximum(last - first, 0)
    upper = np.repeat(np.arange(len(starts)), counts)
    lower = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    lower += np.repeat(first, counts)
    roots = _roots(len(starts), upper, lower)
    names, numbers = np.unique(roots, return_inverse=True)
    labels = np.zeros(padded.shape, np.int64)
    labels[padded] = np.repeat(numbers + 1, ends - starts)
    return labels.reshape(height, pitch)[:, 1:-1], len(names)


def _roots(count: int, one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns the smallest node that each node is connected to."""
    parent = np.arange(count)
    while True:
        low = np.minimum(parent[one], parent[other])
        before = parent.copy()
        np.minimum.at(parent, parent[one], low)
        np.minimum.at(parent, parent[other], low)
        parent = parent[parent]
        if np.array_equal(parent, before):
            return parent
