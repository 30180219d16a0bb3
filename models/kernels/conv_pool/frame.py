"""Copies images into lanes and padded frames, and back.

A frame (C, rows, columns, L) holds the C input maps of one group of L images, H x W pixels
each, with the padding around them and the columns that complete the last strip of four.
"""

from __future__ import annotations

import numpy as np

from models.kernels.compiled import compiled
from models.kernels.lanes import LANES
from models.kernels.simd.vector import transpose


@compiled()
def frame_lanes(x, shape, out):
    """Copies one group (C, H, W, L) into the middle of its frame of zeros (C, rows, columns, L)."""
    for c in range(shape.maps):
        for r in range(shape.height):
            i = (c * shape.height + r) * shape.width * LANES
            j = (c * shape.rows + r + shape.padding) * shape.columns + shape.padding
            for k in range(shape.width * LANES):  # a slice would also compile its error
                out[j * LANES + k] = x[i + k]


@compiled()
def unframe_lanes(framed, shape, x):
    """The inverse of `frame_lanes`."""
    for c in range(shape.maps):
        for r in range(shape.height):
            i = (c * shape.height + r) * shape.width * LANES
            j = (c * shape.rows + r + shape.padding) * shape.columns + shape.padding
            for k in range(shape.width * LANES):
                x[i + k] = framed[j * LANES + k]


@compiled()
def inside(framed, shape):
    """The part of a frame that begins at the input's first pixel."""
    return framed[(shape.padding * shape.columns + shape.padding) * LANES :]


@compiled()
def frame_images(x, first, batch, shape, out):
    """Copies images `first` to `first` + L - 1 of x (B, C, H, W) into the middle of a frame."""
    pixels = shape.maps * shape.height * shape.width
    for c in range(shape.maps):
        for r in range(shape.height):
            i = first * pixels + (c * shape.height + r) * shape.width
            j = (c * shape.rows + r + shape.padding) * shape.columns + shape.padding
            into_lanes(x, i, pixels, batch - first, shape.width, out, j * LANES)


@compiled()
def into_lanes(x, start, step, images, width, out, out_start):
    """Interleaves L rows of x, `step` apart: out (width, L), with 0 from lane `images` on."""
    whole = width // LANES * LANES if images >= LANES else 0
    for s in range(0, whole, LANES):
        transpose(x, start + s, step, out, out_start + s * LANES, LANES)
    for s in range(whole, width):
        for lane in range(LANES):
            value = x[start + s + lane * step] if lane < images else np.float32(0)
            out[out_start + s * LANES + lane] = value


@compiled()
def out_of_lanes(x, images, width, out, start, step):
    """The inverse of `into_lanes`: x (width, L) -> rows of out, `step` apart."""
    whole = width // LANES * LANES if images >= LANES else 0
    for s in range(0, whole, LANES):
        transpose(x, s * LANES, LANES, out, start + s, step)
    for s in range(whole, width):
        for lane in range(min(images, LANES)):
            out[start + s + lane * step] = x[s * LANES + lane]
