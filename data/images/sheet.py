"""Finds the sheet of paper in a picture that also shows the surface below it."""

from __future__ import annotations

import numpy as np

from data.images.arrays import Grey, Mask, components, grown, reduced, resized, shrunk

CELLS = 160  # along the longer side
BRIGHTER = 50.0  # of 255: least difference from the table
SHARE = 0.15  # least share of the picture
LARGE = 0.45  # share of the picture above which it is no digit
COVERED = 0.85  # least share of the sheet that is not ink
STRAIGHT = 0.93  # least share of its convex hull
FRAME = 0.6  # least share of the picture's border that is table
MARGIN = 2  # cells that shadow and thickness of its edge may take


def find_sheet(grey: Grey) -> Mask:
    """Returns where paper is, (H, W): everywhere, unless a bright sheet is on a dark surface."""
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
    """Returns the level that splits the values into groups of least variance (Otsu 1979)."""
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
    """Fills the holes of a mask."""
    labels, _ = components(np.pad(~mask, 1, constant_values=True))
    filled: Mask = labels != labels[0, 0]
    return filled[1:-1, 1:-1]


def _step(cells: Grey, sheet: Mask) -> float:
    """Returns how much darker the picture is past the sheet's edge; a vignette is gradual."""
    inside = shrunk(sheet, 1) & ~shrunk(sheet, 3)
    outside = grown(sheet, 3) & ~grown(sheet, 1)
    return float(np.median(cells[inside]) - np.median(cells[outside]))


def _has_corners(mask: Mask) -> bool:
    """Whether it is more like a parallelogram than like an ellipse, or larger than a digit."""
    spread = np.cov(np.array(np.nonzero(mask)))
    # The area by this root is 12 for every parallelogram, 12.57 for every ellipse: 12 or 4 pi.
    return bool(mask.sum() < 12.3 * np.sqrt(np.linalg.det(spread)) or mask.mean() > LARGE)


def _hull_area(mask: Mask) -> float:
    """Returns the area of the convex hull, by the extent of the mask in 48 directions."""
    y, x = np.nonzero(mask)
    rows, columns = np.mgrid[: mask.shape[0], : mask.shape[1]]
    inside = np.ones(mask.shape, np.bool_)
    for angle in np.linspace(0, np.pi, 48, endpoint=False):
        along = x * np.cos(angle) + y * np.sin(angle)
        place = columns * np.cos(angle) + rows * np.sin(angle)
        inside &= (place >= along.min() - 1e-6) & (place <= along.max() + 1e-6)
    return float(inside.sum())
