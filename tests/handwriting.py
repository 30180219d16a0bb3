"""Digits as a person draws them: strokes with speed and wobble, in four styles."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]

# Where the pen goes, x y in a square of 100, stroke by stroke; curves pass through all points.
PLAIN = {
    0: ["50 5, 22 22, 15 50, 24 80, 50 95, 76 80, 85 50, 76 20, 48 5"],
    1: ["50 5, 50 35, 50 65, 50 95"],
    2: ["20 28, 32 8, 60 6, 76 25, 62 50, 38 73, 16 93", "16 93, 45 92, 84 93"],
    3: ["20 14, 45 4, 70 14, 70 34, 45 48", "45 48, 74 56, 80 76, 60 94, 34 95, 16 82"],
    4: ["56 6, 38 32, 16 64", "16 64, 50 64, 86 63", "64 36, 63 66, 62 96"],
    5: ["76 8, 52 8, 28 9", "28 9, 25 26, 22 44", "22 44, 48 38, 74 50, 76 74, 56 93, 20 90"],
    6: ["68 6, 42 22, 22 50, 20 78, 42 95, 68 88, 74 68, 54 54, 32 60, 22 76"],
    7: ["16 9, 50 8, 84 8", "84 8, 62 40, 48 68, 38 96"],
    8: ["70 20, 50 5, 28 16, 36 38, 62 54, 76 76, 54 95, 26 84, 28 62, 56 44, 70 22"],
    9: ["74 28, 52 7, 26 18, 24 42, 48 52, 72 34, 75 20", "75 20, 72 56, 66 95"],
}
SCHOOL = PLAIN | {
    1: ["28 30, 42 18, 54 5", "54 5, 54 50, 53 95"],
    2: ["18 26, 36 6, 66 10, 74 32, 54 62, 24 88, 16 84, 30 78, 58 90, 86 88"],
    4: ["28 6, 24 34, 24 56", "24 56, 52 56, 80 55", "74 8, 72 50, 71 96"],
    7: ["18 10, 50 8, 82 8", "82 8, 64 40, 50 68, 42 96", "38 52, 56 51, 76 50"],
    9: ["74 24, 50 6, 26 22, 30 46, 56 48, 74 26", "74 26, 76 58, 64 86, 40 95, 24 84"],
}
STYLES = {
    # forms, slant, width, size on a sheet of 280, pen, wobble, points along a stroke
    "plain": (PLAIN, 0.0, 0.8, 190, 22, 1.0, 22),
    "slanted": (PLAIN, 0.28, 0.75, 170, 18, 1.5, 18),
    "school": (SCHOOL, 0.05, 0.85, 200, 26, 1.0, 22),
    "hasty": (SCHOOL, 0.15, 0.95, 110, 14, 1.5, 9),
}


def draw(digit: int, style: str, generator: np.random.Generator) -> tuple[int, list[Points]]:
    """The pen's width, and for each stroke the places (N, 2) at which the pen is seen."""
    forms, slant, wide, size, pen, wobble, count = STYLES[style]
    slant += generator.normal(0, 0.06)
    size *= generator.uniform(0.85, 1.1)
    wide *= generator.uniform(0.9, 1.1)
    turn = generator.normal(0, 0.06)
    centre = 140 + generator.uniform(-1, 1, 2) * min(40, max(0, 120 - size / 2))
    shear = np.array([[wide, -slant], [0, 1]])
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    strokes = []
    for text in forms[digit]:
        corners = np.array([[float(n) for n in pair.split()] for pair in text.split(",")])
        # A hand misses its own model by a little, everywhere.
        corners += generator.normal(0, 2.0, corners.shape)
        path = _paced(_curve(corners), count, generator)
        path = (path / 100 - 0.5) @ shear.T @ rotation.T * size + centre
        strokes.append((path + _tremor(len(path), wobble, generator)).clip(6, 274))
    return pen, strokes


def _curve(corners: Points, steps: int = 30) -> Points:
    """A Catmull-Rom spline through all corners."""
    ends = np.vstack([2 * corners[0] - corners[1], corners, 2 * corners[-1] - corners[-2]])
    t = np.linspace(0, 1, steps, endpoint=False)[:, None]
    pieces = [
        0.5
        * (
            2 * b
            + (c - a) * t
            + (2 * a - 5 * b + 4 * c - d) * t**2
            + (3 * b - a - 3 * c + d) * t**3
        )
        for a, b, c, d in zip(ends, ends[1:], ends[2:], ends[3:], strict=False)
    ]
    return np.vstack([*pieces, corners[-1:]])


def _paced(path: Points, count: int, generator: np.random.Generator) -> Points:
    """The places at even times: slow where a stroke begins, bends and ends."""
    steps = np.diff(path, axis=0)
    lengths = np.hypot(*steps.T)
    bends = np.abs(np.diff(np.unwrap(np.arctan2(*steps.T)), prepend=0)) / (lengths + 1e-9)
    bends[0] = 0
    eased = 0.35 + np.sin(np.linspace(0.1, np.pi - 0.1, len(lengths)))
    speed = eased / (1 + 8 * bends) ** (1 / 3)
    times = np.concatenate([[0], np.cumsum(lengths / speed)])
    seen = np.sort(generator.uniform(0, 0.3, count) + np.arange(count)) / (count - 0.7)
    seen[0], seen[-1] = 0, 1
    return np.stack([np.interp(seen * times[-1], times, axis) for axis in path.T], 1)


def _tremor(count: int, size: float, generator: np.random.Generator) -> Points:
    """A hand's wobble: noise that remembers where it was."""
    noise = generator.normal(0, size, (count, 2))
    for i in range(1, count):
        noise[i] += 0.7 * noise[i - 1]
    return noise
