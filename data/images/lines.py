"""Removes printed lines: those of ruled and squared paper, and the boxes of forms.

A line of paper goes from edge to edge; a box has two lines in each direction around the writing.
Their pixels are removed where the ink is no thicker than the line, so a stroke that crosses a line
or runs along it stays whole.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from data.images.arrays import Grey, Mask, components, dilated, resized, run_lengths

TILT = 0.1  # share of its length by which a line may rise or fall
COVERED = 0.65  # share of its length over which a line must be visible
THICK = 0.03  # share of the shorter side: thicker ink is a stroke
HOLLOW = 0.35  # share of a box's area that its lines and content may cover
SMALLEST = 64  # pixels of the shorter side below which lines are not looked for
COARSE = 200


def without_lines(mask: Mask) -> Mask:
    """Removes the lines of paper and boxes.

    Args:
        mask: (H, W), where ink is.

    Returns:
        (H, W), where written ink is.
    """
    if min(mask.shape) < SMALLEST:
        return mask
    thickest = max(3, round(THICK * min(mask.shape)))
    rows = _lines(mask, thickest, whole=True)
    columns = _lines(mask.T, thickest, whole=True).T
    mask = _erased(mask, rows, columns)
    labels, count = components(mask)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    for label in np.argsort(-sizes[1:])[:4] + 1:
        mask = _without_box(mask, labels == label, thickest)
    return mask


def _without_box(mask: Mask, part: Mask, thickest: int) -> Mask:
    """Removes the lines of a connected part from the mask, if that part is a box."""
    ys, xs = np.flatnonzero(part.any(1)), np.flatnonzero(part.any(0))
    if len(ys) < SMALLEST / 2 or len(xs) < SMALLEST / 2:
        return mask
    area = np.s_[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]
    inside = part[area]
    if inside.mean() > HOLLOW:
        return mask
    rows = _lines(inside, thickest, whole=False)
    columns = _lines(inside.T, thickest, whole=False).T
    if not (_encloses(rows) and _encloses(columns.T)):
        return mask
    rest = mask.copy()
    rest[area] &= _erased(inside, rows, columns) | ~inside
    return rest


def _encloses(lines: Mask) -> bool:
    """Whether there are lines along the rows that are far apart, with none between them."""
    seen = np.flatnonzero(lines.mean(1) > COVERED / 4)
    if len(seen) < 2:
        return False
    gap = int(np.diff(seen).max())
    return gap > len(lines) / 2


def _erased(mask: Mask, rows: Mask, columns: Mask) -> Mask:
    """Removes lines along rows and columns where the ink is no thicker than they are."""
    high, wide = _thickness(mask, rows, 0), _thickness(mask, columns, 1)
    # Columns must be measured without the rows that cross them, and vice versa.
    rest = mask & ~(rows & (run_lengths(mask, 0) <= high))
    rest &= ~(columns & (run_lengths(rest, 1) <= wide))
    return rest & ~(rows & (run_lengths(rest, 0) <= high))


def _thickness(mask: Mask, line: Mask, axis: int) -> float:
    """Returns 1.5 times the median thickness of a line, plus 1; 0 without a line."""
    lengths = run_lengths(mask, axis)[line & mask]
    return 1.5 * float(np.median(lengths)) + 1 if len(lengths) else 0.0


def _lines(mask: Mask, thickest: int, *, whole: bool) -> Mask:
    """Returns pixels (H, W) of lines along the rows, tilted or not; `whole`: edge to edge."""
    height, width = mask.shape
    scale = max(1.0, width / COARSE)
    coarse = _resized(mask, max(8, round(height / scale)), round(width / scale))
    reach = int(TILT * coarse.shape[1])
    shift, found = _sharpest(coarse, np.arange(-reach, reach + 1))
    if found < COVERED:
        return np.zeros_like(mask)
    near = np.arange(np.floor((shift - 1.5) * scale), np.ceil((shift + 1.5) * scale) + 1, 2)
    shift, found = _sharpest(mask, near)
    index, inside = _sheared(mask.shape, shift)
    coverage = _coverage(mask, index, inside)
    if whole:
        ends = max(4, width // 8)
        for end in (np.s_[:, :ends], np.s_[:, -ends:]):
            share = _coverage(mask[end], index[end], inside[end])
            coverage = np.where(share > 0.4, coverage, 0)
    # Rows of a line, and two more at either side for a bent one.
    band = dilated((coverage > COVERED)[:, None], 2, 2, 0)
    line = np.zeros_like(mask)
    np.put_along_axis(line, index, np.broadcast_to(band, mask.shape) & inside, 0)
    line &= mask
    lengths = run_lengths(mask, 0)[line]
    return line if len(lengths) and np.median(lengths) <= thickest else np.zeros_like(mask)


def _resized(mask: Mask, height: int, width: int) -> Mask:
    """Shrinks a mask; a pixel is set if more than 15 % of it was."""
    small: Grey = resized(mask.astype(np.float32), height, width)
    return small > 0.15


def _sharpest(mask: Mask, shifts: NDArray[np.int64]) -> tuple[int, float]:
    """Returns by how many pixels lines tilt from edge to edge, and the best line's coverage."""
    best, most, sharpness = 0, 0.0, -1.0
    for shift in shifts:
        coverage = _coverage(mask, *_sheared(mask.shape, int(shift)))
        if (value := float((coverage**4).sum())) > sharpness:
            best, most, sharpness = int(shift), float(coverage.max()), value
    return best, most


def _coverage(mask: Mask, index: NDArray[np.int64], inside: Mask) -> NDArray[np.float64]:
    """Returns the set share of each tilted row inside the picture, within a pixel."""
    seen = np.take_along_axis(dilated(mask, 1, 1, 0), index, 0) & inside
    share = np.asarray(seen.sum(1) / np.maximum(inside.sum(1), 1))
    # A row that is mostly outside is no line.
    return np.where(inside.mean(1) > 0.6, share, 0.0)


def _sheared(shape: tuple[int, ...], shift: int) -> tuple[NDArray[np.int64], Mask]:
    """Returns the row (H, W) of each pixel of a tilted row, and whether it is inside."""
    height, width = shape
    rise = np.rint(np.linspace(-shift / 2, shift / 2, width)).astype(np.int64)
    rows = np.arange(height)[:, None] + rise
    return rows % height, (rows >= 0) & (rows < height)
