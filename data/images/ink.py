"""Measures the ink on each pixel, whatever the light, the paper and the colours are.

Dark ink absorbs a share of the light that the paper would reflect, so a shadow does not count. The
light of the paper itself is estimated by filling everything narrower than the widest stroke from
its surroundings.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from data.images.arrays import Grey, Mask, blurred, grown, reduced, resized, shrunk

CELLS = 48  # of the longer side, on which light is measured
WINDOW = 0.3  # share of the longer side: the median of such a window is paper
STROKE = 0.16  # share of the shorter side: the widest stroke in uneven light
EVEN = 0.12  # share of the contrast by which even light may vary on the border, and to the rest
LEAST, SIGMAS = 0.05, 4.5  # least ink: share of the light, and deviations of the noise
DARKEST = 16.0  # of 255: light that a camera adds by itself


class Ink(NamedTuple):
    """The ink in a picture."""

    density: Grey
    """(H, W), 0 on paper, 1 where all light is gone."""
    noise: float
    """The density's standard deviation on paper."""
    dark: bool
    """Whether the ink is darker than the paper."""

    @property
    def threshold(self) -> float:
        """The density below which a pixel is paper."""
        return max(LEAST, SIGMAS * self.noise)


def find_ink(picture: Grey, sheet: Mask) -> Ink:
    """Separates ink from paper.

    Args:
        picture: (H, W, C) with 1 or 3 channels, 0 to 255.
        sheet: (H, W), where the paper is.
    """
    around = np.median(picture[sheet], 0).astype(np.float32)
    picture = np.where(sheet[..., None], picture, around)
    deviation = picture - _usual(picture)
    axis = _axis(deviation)
    value = picture @ axis
    difference = np.asarray(deviation @ axis, np.float32)
    dark = _energy(-difference) >= _energy(difference)
    paper = _paper(value if dark else -value)
    density = paper - value if dark else value + paper
    # Dark ink absorbs a share of the paper's light; chalk adds to the light of a board.
    density /= np.maximum(_paper(picture.mean(2)), DARKEST) if dark else 255
    density -= np.median(density[sheet])
    noise = 1.4826 * float(np.median(np.abs(density[sheet])))
    return Ink(np.where(sheet, density, 0).astype(np.float32), noise, bool(dark))


def _usual(picture: Grey) -> Grey:
    """Returns medians (H, W, C) of the surroundings, or of the border if its light is even."""
    channels = []
    for channel in np.moveaxis(picture, 2, 0):
        if (level := _even(channel)) is not None:
            channels.append(np.full(channel.shape, level, np.float32))
            continue
        cells = reduced(channel, CELLS)
        half = max(1, round(WINDOW / 2 * max(cells.shape)))
        # Beyond the edge a slope continues, and does not become constant.
        room = [min(half, n - 1) for n in cells.shape]
        around = np.pad(cells, [(r, r) for r in room], "reflect", reflect_type="odd")
        windows = sliding_window_view(around, [2 * r + 1 for r in room])
        channels.append(resized(np.median(windows, (2, 3)).astype(np.float32), *channel.shape))
    return np.stack(channels, 2)


def _even(value: Grey) -> float | None:
    """Returns the border's median if its light is even or the picture is small; else None."""
    level = float(np.median(_border(value)))
    contrast = float(np.percentile(np.abs(value - level), 99.5))
    low, high = np.percentile(_border(reduced(value, CELLS)), [3, 97])
    difference = max(high - low, abs(np.median(value) - level))
    return level if difference <= EVEN * contrast or max(value.shape) <= CELLS else None


def _border(value: Grey) -> Grey:
    return np.concatenate([value[0], value[-1], value[:, 0], value[:, -1]])


def _axis(deviation: Grey) -> NDArray[np.float32]:
    """Returns the colour axis (C,) along which ink differs most; absolute values sum to 1."""
    pixels = deviation.reshape(-1, deviation.shape[2])
    strength = np.square(pixels).sum(1, keepdims=True)
    axis = np.linalg.eigh((pixels * strength).T @ pixels)[1][:, -1]
    return np.asarray(axis / np.abs(axis).sum() * (1 if axis.sum() >= 0 else -1), np.float32)


def _energy(deviation: Grey) -> float:
    return float(np.square(np.maximum(deviation, 0)).sum())


def _paper(value: Grey) -> Grey:
    """Returns the light of the paper (H, W): in uneven light, without narrow dark places."""
    if (level := _even(value)) is not None:
        return np.full(value.shape, level, np.float32)
    half = max(1, round(STROKE * min(value.shape) / 2))
    # The paper is continued beyond the edge; otherwise a dark edge would be filled, too.
    wide = np.pad(value, half, "edge")
    closed = shrunk(grown(wide, half), half)[half:-half, half:-half]
    return blurred(closed, half // 2)
