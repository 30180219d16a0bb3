"""The ink of single digits: enlarged from MNIST, or drawn with a pen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Array = NDArray[Any]
Random = np.random.Generator
Draw = Callable[[int], Array]


def enlarged(digit: Array, rng: Random) -> Draw:
    """An MNIST digit (28, 28), smooth and turned a little, as ink of any height."""
    angle, softness = rng.uniform(-5, 5), rng.uniform(4, 12)

    def draw(height: int) -> Array:
        side = round(height * 1.4)
        image = Image.fromarray(digit.astype(np.float32) / 255)
        image = image.resize((side, side), Image.Resampling.BICUBIC)
        ink = np.asarray(image.rotate(angle, Image.Resampling.BILINEAR))
        return cropped(1 / (1 + np.exp(-softness * (ink - 0.5) * 2)))

    return draw


DIGITS: dict[int, list[list[tuple[float, float]]]] = {
    0: [[(0.5, 0), (0.15, 0.2), (0.05, 0.5), (0.15, 0.85), (0.45, 1), (0.8, 0.85), (0.92, 0.5),
         (0.8, 0.15), (0.5, 0)]],
    1: [[(0.5, 0), (0.47, 0.5), (0.45, 1)]],
    2: [[(0.1, 0.25), (0.3, 0.02), (0.65, 0.02), (0.8, 0.25), (0.65, 0.5), (0.35, 0.75), (0.05, 1),
         (0.45, 0.96), (0.9, 0.99)]],
    3: [[(0.12, 0.1), (0.45, 0), (0.75, 0.15), (0.7, 0.38), (0.35, 0.48), (0.72, 0.56),
         (0.85, 0.78), (0.6, 0.98), (0.25, 1), (0.05, 0.88)]],
    4: [[(0.25, 0), (0.15, 0.3), (0.08, 0.55), (0.5, 0.55), (0.9, 0.5)],
        [(0.72, 0.05), (0.68, 0.5), (0.64, 1)]],
    5: [[(0.22, 0.02), (0.18, 0.25), (0.15, 0.45), (0.5, 0.38), (0.8, 0.55), (0.82, 0.8),
         (0.5, 1), (0.1, 0.92)], [(0.22, 0.03), (0.5, 0.02), (0.82, 0)]],
    6: [[(0.65, 0), (0.35, 0.2), (0.15, 0.5), (0.12, 0.8), (0.4, 1), (0.72, 0.9), (0.75, 0.65),
         (0.5, 0.52), (0.2, 0.65), (0.14, 0.8)]],
    7: [[(0.1, 0.05), (0.5, 0.03), (0.85, 0), (0.65, 0.35), (0.5, 0.65), (0.4, 1)]],
    8: [[(0.78, 0.12), (0.5, 0), (0.22, 0.15), (0.3, 0.38), (0.65, 0.58), (0.8, 0.8), (0.5, 1),
         (0.18, 0.85), (0.3, 0.6), (0.62, 0.4), (0.78, 0.12)]],
    9: [[(0.78, 0.15), (0.5, 0), (0.22, 0.15), (0.2, 0.38), (0.45, 0.5), (0.74, 0.35),
         (0.79, 0.12), (0.74, 0.5), (0.68, 0.8), (0.6, 1)]],
}  # fmt: skip


# What looks like no digit.
LETTERS: dict[str, list[list[tuple[float, float]]]] = {
    "A": [[(0.05, 1), (0.45, 0), (0.9, 1)], [(0.22, 0.62), (0.75, 0.62)]],
    "E": [[(0.85, 0), (0.1, 0), (0.1, 1), (0.9, 1)], [(0.1, 0.5), (0.7, 0.5)]],
    "F": [[(0.9, 0), (0.1, 0), (0.1, 1)], [(0.1, 0.48), (0.7, 0.48)]],
    "H": [[(0.1, 0), (0.1, 1)], [(0.85, 0), (0.85, 1)], [(0.1, 0.5), (0.85, 0.5)]],
    "K": [[(0.1, 0), (0.1, 1)], [(0.85, 0), (0.12, 0.55), (0.9, 1)]],
    "M": [[(0.05, 1), (0.15, 0), (0.5, 0.6), (0.85, 0), (0.95, 1)]],
    "N": [[(0.1, 1), (0.1, 0), (0.85, 1), (0.85, 0)]],
    "R": [[(0.1, 1), (0.1, 0), (0.7, 0.05), (0.75, 0.4), (0.1, 0.5), (0.85, 1)]],
    "W": [[(0, 0), (0.25, 1), (0.5, 0.3), (0.75, 1), (1, 0)]],
    "X": [[(0.05, 0), (0.9, 1)], [(0.9, 0), (0.05, 1)]],
    "*": [[(0.5, 0), (0.5, 1)], [(0.05, 0.25), (0.95, 0.75)], [(0.95, 0.25), (0.05, 0.75)]],
    "#": [[(0.3, 0), (0.25, 1)], [(0.75, 0), (0.7, 1)], [(0, 0.3), (1, 0.3)], [(0, 0.7), (1, 0.7)]],
}  # fmt: skip


def scribble(rng: Random) -> list[list[tuple[float, float]]]:
    """A line that goes here and there."""
    return [[(float(x), float(y)) for x, y in rng.random((int(rng.integers(5, 10)), 2))]]


def penned(lines: list[list[tuple[float, float]]], rng: Random) -> Draw:
    """Lines drawn with a pen: corners rounded, the hand shaking, slanted, of any height."""
    slant, narrow = rng.uniform(-0.2, 0.25), rng.uniform(0.55, 0.8)
    width, shake = rng.uniform(0.04, 0.13), rng.uniform(0, 0.025)
    strokes = []
    for line in lines:
        points = np.array(line) + rng.normal(0, shake, (len(line), 2))
        for _ in range(3):  # cuts the corners (Chaikin)
            near = 0.75 * points[:-1] + 0.25 * points[1:]
            far = 0.25 * points[:-1] + 0.75 * points[1:]
            inner = np.stack([near, far], 1).reshape(-1, 2)
            points = np.concatenate([points[:1], inner, points[-1:]])
        points[:, 0] = narrow * points[:, 0] + slant * (1 - points[:, 1])
        strokes.append(points)

    def draw(height: int) -> Array:
        pen = max(2.0, width * height)
        low = np.concatenate(strokes).min(0)
        paths = [(points - low) * (height - pen) + pen for points in strokes]
        extent = np.concatenate(paths).max(0) + pen
        image = Image.new("L", tuple(int(3 * n) + 3 for n in extent))
        ink = ImageDraw.Draw(image)
        for path in paths:
            for x, y in 3 * path:
                radius = 1.5 * pen
                ink.ellipse((x - radius, y - radius, x + radius, y + radius), 255)
            ink.line([tuple(3 * point) for point in path], 255, round(3 * pen))
        return cropped(np.asarray(image.reduce(3), np.float32) / 255)

    return draw


def cropped(ink: Array) -> Array:
    """What is above nothing."""
    rows, columns = np.flatnonzero((ink > 0.05).any(1)), np.flatnonzero((ink > 0.05).any(0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
