"""Finds the digits in a picture, or the reason why they cannot be read."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from data.images.arrays import Grey, Mask, blurred, grown, reduced
from data.images.centre import like_mnist
from data.images.finding import Found, find_digits
from data.images.ink import Ink, find_ink
from data.images.lines import without_lines
from data.images.sheet import find_sheet

GRAIN = 300  # pixels of the longer side above which paper has a grain
NOISY = 0.05  # share of the light: more noise, such as dithering, is blurred away
LONGEST = 450  # pixels of the longer side to which a picture is reduced
CLOSER = 80  # pixels of a digit: smaller ones are analysed again at full resolution
CUTTING = 128  # pixels of the longer side: up to this size, the edge cuts off no digit
FAINT = 0.1  # share of a digit's density that counts as paper without noise
NO_INK, EDGE, SEVERAL = "no ink", "touches the edge", "several digits; --several reads them"


class Seen(NamedTuple):
    """One digit of a picture, or why there is none."""

    pixels: Tensor | None
    """(28, 28) uint8, as the network takes it; None where there is no ink."""
    ink: str
    """The kind of ink found: dark or light."""
    reason: str = ""
    """Why it should not be relied on; empty if it can be."""


def look(picture: NDArray[Any], *, several: bool) -> list[Seen]:
    """Finds the digits of a picture.

    Args:
        picture: (H, W, C) with 1 or 3 channels, 0 to 255, of any dtype.
        several: whether there may be more than one.

    Returns:
        One entry per digit in reading order; without `several` exactly one.
    """
    channels = (reduced(channel, LONGEST) for channel in np.moveaxis(picture, 2, 0))
    small = np.stack(list(channels), 2).astype(np.float32)
    sheet = find_sheet(small.mean(2))
    ink, written = _written(small, sheet)
    found = find_digits(ink.density, written)
    if not found and small.shape != picture.shape:  # possible dust is analysed again
        found = find_digits(ink.density, written, dust=0)
    if not found:
        return [Seen(None, _name(ink), NO_INK)]
    if several:
        return [_seen(picture, sheet, ink, digit) for digit in found]
    largest = max(found, key=lambda digit: digit.mass)
    seen = _seen(picture, sheet, ink, largest)
    return [seen._replace(reason=SEVERAL) if len(found) > 1 else seen]


def _blurred(picture: Grey, radius: int) -> Grey:
    return np.stack([blurred(channel, radius) for channel in np.moveaxis(picture, 2, 0)], 2)


def _written(picture: Grey, sheet: Mask) -> tuple[Ink, Mask]:
    for grain in range(int(max(sheet.shape) > GRAIN), max(2, 2 * max(sheet.shape) // GRAIN)):
        ink = find_ink(_blurred(picture, grain), sheet)
        if ink.noise < NOISY:
            break
    return ink, without_lines(ink.density > ink.threshold)


def _name(ink: Ink) -> str:
    return "dark" if ink.dark else "light"


def _seen(picture: NDArray[Any], sheet: Mask, ink: Ink, digit: Found) -> Seen:
    """Returns one digit in MNIST's form, analysed again at full resolution if it is small."""
    scale = picture.shape[0] / sheet.shape[0]
    reason = EDGE if _is_cut(digit) else ""
    if scale > 1 and digit.extent < CLOSER:
        middle = [scale * (digit.top + digit.bottom) / 2, scale * (digit.left + digit.right) / 2]
        reach = round(1.2 * scale * digit.extent)
        top, left = (max(0, round(m) - reach) for m in middle)
        near = picture[top : top + 2 * reach, left : left + 2 * reach].astype(np.float32)
        # The surface below the paper may be near, too.
        places = zip((top, left), near.shape[:2], sheet.shape, strict=True)
        ink, written = _written(near, sheet[np.ix_(*(_behind(*n, scale) for n in places))])
        place = [m - start for m, start in zip(middle, (top, left), strict=True)]
        again = [d for d in find_digits(ink.density, written, dust=1) if _holds(d, place)]
        if not again:
            return Seen(None, _name(ink), NO_INK)
        digit = again[0]
    return Seen(like_mnist(_strokes(ink, digit)), _name(ink), reason)


def _behind(start: int, count: int, most: int, scale: float) -> NDArray[np.intp]:
    """Returns the small picture's rows or columns for `count` of the large one's from `start`."""
    behind: NDArray[np.intp] = ((start + np.arange(count) + 0.5) / scale).astype(np.intp)
    return behind.clip(max=most - 1)


def _holds(digit: Found, place: list[float]) -> bool:
    y, x = place
    return digit.top <= y <= digit.bottom and digit.left <= x <= digit.right


def _is_cut(digit: Found) -> bool:
    """Whether the edge cuts it off; not if it fills the picture or that is a small cutting."""
    top, bottom, left, right = digit.edges
    return max(digit.mask.shape) > CUTTING and (top != bottom or left != right)


def _strokes(ink: Ink, digit: Found) -> Grey:
    """Returns the digit's ink alone, (H, W) from 0 to 1, without the noise of paper."""
    area = np.s_[max(0, digit.top - 2) : digit.bottom + 2, max(0, digit.left - 2) : digit.right + 2]
    density, mask = ink.density[area], digit.mask[area]
    most = float(np.percentile(density[mask], 98))
    faint = max(FAINT, min(0.5, 2 * ink.noise / most))
    strokes = np.clip((density / most - faint) / (1 - faint), 0, 1)
    return np.where(grown(mask, 1), strokes, 0).astype(np.float32)
