"""The sheet of paper in a picture that also shows what it lies on."""

from __future__ import annotations

import numpy as np

from data.images.arrays import Grey, Mask, components, grown, reduced, resized, shrunk

CELLS = 160  # of the longer side
BRIGHTER = 50.0  # of 255: than the table
SHARE = 0.15  # of the picture, at least
LARGE = 0.45  # of the picture: more than a digit fills
COVERED = 0.85  # of the sheet is not ink
STRAIGHT = 0.93  # of its convex hull, at least
FRAME = 0.6  # of the picture's border is table
MARGIN = 2  # cells that shadow and thickness of its edge may take


def find_sheet(grey: Grey) -> Mask:
    """Where the paper is: (H, W); everywhere, unless a bright sheet lies on something dark."""
    everywhere = np.ones(grey.shape, np.bool_)
    if max(grey.shape) <= CELLS:
        return everywhere
    cells = reduced(grey, CELLS)
    bright = cells > _otsu(cells)
    if bright.all() or not bright.any():
        return everywhere
    if cells[bright].mean() - cells[~bright].mean() < BRIGHTER or _border(~bright) < FRAME:
        return everywhere
    labels, _ = components(bright)
    largest = labels == np.bincount(labels[bright]).argmax()
    sheet = _filled(largest)
    if sheet.mean() < SHARE or largest.sum() < COVERED * sheet.sum():
        return everywhere
    if sheet.sum() < STRAIGHT * _hull_area(sheet) or not _has_corners(sheet):
        return everywhere
    if _step(cells, sheet) < BRIGHTER / 2:
        return everywhere
    return resized(shrunk(sheet, MARGIN).astype(np.float32), *grey.shape) > 0.5


def _otsu(grey: Grey) -> float:
    """The level that parts the values into two groups with the least variance (Otsu 1979)."""
    counts, edges = np.histogram(grey, 128)
    middles = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * middles)
    apart = sums / np.maximum(below, 1) - (sums[-1] - sums) / np.maximum(above, 1)
    return float(middles[np.argmax(below * above * apart**2)])


def _border(mask: Mask) -> float:
    return float(np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]]).mean())


def _filled(mask: Mask) -> Mask:
    """With its holes."""
    labels, _ = components(np.pad(~mask, 1, constant_values=True))
    filled: Mask = labels != labels[0, 0]
    return filled[1:-1, 1:-1]


def _step(cells: Grey, sheet: Mask) -> float:
    """By how much the picture grows darker where the sheet ends, which a vignette does slowly."""
    inside = shrunk(sheet, 1) & ~shrunk(sheet, 3)
    outside = grown(sheet, 3) & ~grown(sheet, 1)
    return float(np.median(cells[inside]) - np.median(cells[outside]))


def _has_corners(mask: Mask) -> bool:
    """Whether it is more like a parallelogram than like an ellipse, or larger than a digit."""
    spread = np.cov(np.array(np.nonzero(mask)))
    # 12 for every parallelogram, 12.57 for every ellipse.
    return bool(mask.sum() < 12.3 * np.sqrt(np.linalg.det(spread)) or mask.mean() > LARGE)


def _hull_area(mask: Mask) -> float:
    """The area of the smallest convex shape around it: what lies inside of it in all directions."""
    y, x = np.nonzero(mask)
    rows, columns = np.mgrid[: mask.shape[0], : mask.shape[1]]
    inside = np.ones(mask.shape, np.bool_)
    for angle in np.linspace(0, np.pi, 48, endpoint=False):
        along = x * np.cos(angle) + y * np.sin(angle)
        place = columns * np.cos(angle) + rows * np.sin(angle)
        inside &= (place >= along.min() - 1e-6) & (place <= along.max() + 1e-6)
    return float(inside.sum())
