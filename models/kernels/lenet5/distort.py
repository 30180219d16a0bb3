"""Selects the images of a group, distorts them if that is asked for, and scales them to inputs.

The distortion is that of `models/distortion.py`, written out for one image.
"""

from __future__ import annotations

import math

import numpy as np

from models.kernels.compiled import compiled
from models.kernels.distortion import OF_MAP, WAVES, waves
from models.kernels.lanes import LANES
from models.kernels.lenet5.design import SIZE

LINE = 32
"""Floats in a row of the frame: a zero, a row of the image, and more zeros."""

FRAME = (SIZE + 3) * LINE
"""Floats in a frame: a row of zeros above the image, and two below."""

BENDS = (2 + 2 * WAVES) * SIZE
"""Floats for the displacements of a row of pixels, and for the sums that they come from."""

TABLE = waves(SIZE).ravel()


@compiled()
def pick_images(batch, first, pixels, frame, bends, out):
    """Writes images batch.order[first], batch.order[first + 1], ... as network inputs.

    A pixel v becomes v / unit + offset: out (L, pixels). `frame` must be 0 around the image, and
    `bends` 0 without an elastic part; images to be distorted have SIZE x SIZE pixels.
    """
    for lane in range(min(len(batch.order) - first, LANES)):
        start = batch.order[first + lane] * pixels
        # Slices, so that the compiler knows that no index is negative, and vectorizes the loops.
        image = batch.images[start : start + pixels]
        row = out[lane * pixels : (lane + 1) * pixels]
        if len(batch.numbers):
            _into_frame(image, frame)
            _distort(frame, batch.limits, batch.numbers[first + lane], bends, row)
            for s in range(pixels):
                row[s] = row[s] / batch.unit + batch.offset
        else:
            for s in range(pixels):
                row[s] = np.float32(image[s]) / batch.unit + batch.offset


@compiled()
def _into_frame(image, frame):
    for r in range(SIZE):
        pixels, start = image[r * SIZE : (r + 1) * SIZE], (r + 1) * LINE + 1
        row = frame[start : start + SIZE]
        for c in range(SIZE):
            row[c] = np.float32(pixels[c])


@compiled()
def _distort(frame, limits, numbers, bends, out):
    """Distorts an image (28, 28) by its random numbers, with bilinear interpolation."""
    rotation, scale, shear, shift, elastic = limits
    angle = rotation * numbers[0]
    cos, sin = math.cos(angle), math.sin(angle)
    height, width = np.float32(1) + scale * numbers[1], np.float32(1) + scale * numbers[2]
    lean = shear * numbers[3]
    # Maps columns and rows of the result, counted from its middle, to those of the image.
    x_column, x_row = cos * width, cos * lean - sin * height
    y_column, y_row = sin * width, sin * lean + cos * height
    middle = np.float32((SIZE - 1) / 2)
    x_start = shift * numbers[4] + middle - middle * (x_column + x_row) + np.float32(1)
    y_start = shift * numbers[5] + middle - middle * (y_column + y_row) + np.float32(1)
    is_bent = len(numbers) > OF_MAP
    across, down, sums = bends[:SIZE], bends[SIZE : 2 * SIZE], bends[2 * SIZE :]
    if is_bent:
        _sum_waves(numbers[OF_MAP:], elastic, sums)
    for r in range(SIZE):
        if is_bent:
            _bend(sums, r, across, down)
        for c in range(SIZE):
            x = x_column * np.float32(c) + (x_row * np.float32(r) + x_start) + across[c]
            y = y_column * np.float32(c) + (y_row * np.float32(r) + y_start) + down[c]
            out[r * SIZE + c] = _between(frame, _inside(x), _inside(y))


@compiled()
def _sum_waves(numbers, factor, sums):
    """Sums the waves along a row times their numbers: (2, WAVES, 28), one for each wave down."""
    for i in range(2 * WAVES):
        line = sums[i * SIZE : (i + 1) * SIZE]
        line[:] = 0
        for wave in range(WAVES):
            _add(factor * numbers[i * WAVES + wave], TABLE[wave * SIZE : (wave + 1) * SIZE], line)


@compiled()
def _bend(sums, r, across, down):
    """The displacements of row r's pixels in columns and rows."""
    across[:] = 0
    down[:] = 0
    for wave in range(WAVES):
        factor, start = TABLE[wave * SIZE + r], wave * SIZE
        _add(factor, sums[start : start + SIZE], across)
        _add(factor, sums[start + WAVES * SIZE : start + (WAVES + 1) * SIZE], down)


@compiled()
def _add(factor, values, line):
    for c in range(SIZE):
        line[c] += factor * values[c]


@compiled()
def _inside(x):
    """Clamps a coordinate to the zeros on either side, as all beyond is 0 too; NaN becomes 0."""
    x = x if x > np.float32(0) else np.float32(0)
    return x if x < np.float32(SIZE + 1) else np.float32(SIZE + 1)


@compiled()
def _between(frame, x, y):
    """The interpolated value at column x and row y of the frame, which are not negative."""
    column, row = np.int32(x), np.int32(y)
    right, down = x - np.float32(column), y - np.float32(row)
    # Unsigned, since Numba checks whether a signed index counts from the end.
    i = np.uint64(np.uint32(row) * np.uint32(LINE) + np.uint32(column))
    a, b = frame[i], frame[i + np.uint64(1)]
    c, d = frame[i + np.uint64(LINE)], frame[i + np.uint64(LINE + 1)]
    above, below = a + right * (b - a), c + right * (d - c)
    return above + down * (below - above)
