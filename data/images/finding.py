"""Finds the digits in a picture, each with its pieces, in reading order."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.images.arrays import Grey, Mask, components, grown

INKED = 0.35  # share of a digit's usual density at which its strokes end
SIZE, PIXELS = 0.012, 5  # smallest digit, as a share of the longer side and in pixels
DUST, FULL = 0.03, 0.72  # largest dust, as a share of the longer side, if it so fills its box
PIECE = 0.12  # share of a digit's extent below which a piece does not count
FAINTER = 0.55  # share of a digit's usual density below which it is a shadow
ANOTHER = 0.45  # least extent of another digit, as a share of the largest's
MASS = 0.12  # least ink of another digit, as a share of the largest's
# Largest width of an edge: pixels that are always allowed, and shares of a digit's extent, for
# faint ink and in addition for ink that absorbs all light.
SOFTEST, SOFT, BLUR = 5.0, 0.02, 0.2
NEAR, BESIDE = 0.25, 0.12  # largest gaps in a digit, above and beside, as shares of its extent


class Found(NamedTuple):
    """One digit's ink."""

    mask: Mask
    """(H, W), its pixels in the picture."""
    top: int
    bottom: int
    left: int
    right: int
    mass: float
    """The sum of its density."""

    @property
    def extent(self) -> int:
        """The longer side."""
        return max(self.bottom - self.top, self.right - self.left)

    @property
    def usual(self) -> float:
        """The mean density of its ink."""
        return self.mass / int(self.mask.sum())

    @property
    def edges(self) -> tuple[bool, bool, bool, bool]:
        """Whether it touches the picture's top, bottom, left and right."""
        height, width = self.mask.shape
        return self.top == 0, self.bottom == height, self.left == 0, self.right == width


class Parts(NamedTuple):
    """Connected parts, the heaviest first, as arrays (N,)."""

    label: NDArray[np.int64]
    top: NDArray[np.int64]
    bottom: NDArray[np.int64]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    area: NDArray[np.int64]
    mass: NDArray[np.float64]

    def where(self, keep: NDArray[np.bool_] | NDArray[np.int64]) -> Parts:
        """Returns a selection of the parts."""
        return Parts._make(values[keep] for values in self)


def find_digits(density: Grey, written: Mask, dust: float = DUST) -> list[Found]:
    """Finds the parts of a picture that may be digits.

    Args:
        density: (H, W), the amount of ink.
        written: (H, W), the pixels whose ink counts.
        dust: round parts without gaps up to this share of the longer side are dust.

    Returns:
        The digits, in lines from the top, each line from the left; dust is left out.
    """
    labels, parts = _parts(density, written)
    parts = _large(parts, density.shape, dust)
    if not len(parts.label):
        return []
    # Shadows and smears are fainter than strokes; the heaviest part sets the threshold for all.
    usual = float(np.percentile(density[labels == parts.label[0]], 85))
    labels, parts = _parts(density, written & (density > INKED * usual))
    large = _large(parts, density.shape, dust)
    if not len(large.label):
        return []
    groups = _groups(parts, _whole(large, density.shape))
    found = [_found(labels, parts.where(np.array(group))) for group in groups]
    found = [digit for digit in found if not _is_shadow(density, digit)]
    if not found:
        return []
    largest = max(found, key=lambda digit: digit.mass)
    return _in_order([digit for digit in found if _counts(digit, largest)])


def _is_shadow(density: Grey, digit: Found) -> bool:
    """Whether the edges are too soft for ink this faint to be a stroke out of focus."""
    near = np.pad(density, 3)[digit.top : digit.bottom + 6, digit.left : digit.right + 6]
    mask = np.pad(digit.mask, 3)[digit.top : digit.bottom + 6, digit.left : digit.right + 6]
    usual = float(np.percentile(near[mask], 85))
    down, right = np.gradient(near)
    steep = float(np.percentile(np.hypot(down, right)[grown(mask, 2)], 90))
    edge = usual / steep
    return edge > SOFTEST and edge > (SOFT + BLUR * usual) * digit.extent


def _counts(digit: Found, largest: Found) -> bool:
    if digit.mass < MASS * largest.mass or digit.extent < ANOTHER * largest.extent:
        return False
    return digit.usual >= FAINTER * largest.usual


def _parts(density: Grey, mask: Mask) -> tuple[NDArray[np.int64], Parts]:
    labels, count = components(mask)
    y, x = np.nonzero(labels)
    names = labels[y, x]
    ends = []
    for place, size in ((y, mask.shape[0]), (x, mask.shape[1])):
        low, high = np.full(count + 1, size), np.zeros(count + 1, np.int64)
        np.minimum.at(low, names, place)
        np.maximum.at(high, names, place + 1)
        ends += [low[1:], high[1:]]
    area = np.bincount(names, minlength=count + 1)[1:]
    mass = np.bincount(names, density[y, x], count + 1)[1:]
    parts = Parts._make([np.arange(1, count + 1), *ends, area, mass])
    return labels, parts.where(np.argsort(-mass, kind="stable"))


def _large(parts: Parts, shape: tuple[int, ...], dust: float) -> Parts:
    """Removes dust and other small parts."""
    height, width = parts.bottom - parts.top, parts.right - parts.left
    extent = np.maximum(height, width)
    keep = extent >= min(PIXELS, max(shape) / 8)
    keep &= extent >= SIZE * max(shape)
    full = parts.area > FULL * height * width
    round_ = 2 * np.minimum(height, width) > extent
    return parts.where(keep & ~(full & round_ & (extent < dust * max(shape))))


def _whole(parts: Parts, shape: tuple[int, ...]) -> Parts:
    """Removes the parts that touch the edge, if others of comparable size do not."""
    outside = (parts.top == 0) | (parts.left == 0)
    outside |= (parts.bottom == shape[0]) | (parts.right == shape[1])
    if outside.all() or not outside.any():
        return parts
    inside = parts.where(~outside)
    extent = np.maximum(inside.bottom - inside.top, inside.right - inside.left)
    lengths = np.maximum(parts.bottom - parts.top, parts.right - parts.left)[outside]
    # Parts at the edge may be several times larger: hands, shadows and tables.
    return inside if extent.max() > 0.2 * lengths.max() else parts


def _groups(parts: Parts, large: Parts) -> list[list[int]]:
    """Returns the positions of each digit's parts: a large one, and those that belong to it.

    Only the heaviest parts are considered: 60 large ones, 200 in all.
    """
    position = {int(label): n for n, label in enumerate(parts.label)}
    groups: list[list[int]] = []
    for label in large.label[:60]:
        n = position[int(label)]
        home = next((group for group in groups if _belongs(parts, n, group)), None)
        if home is None:
            groups.append([n])
        else:
            home.append(n)
    for n in range(min(len(parts.label), 200)):
        if not any(n in group for group in groups):
            for group in groups:
                if _belongs(parts, n, group):
                    group.append(n)
                    break
    return groups


def _belongs(parts: Parts, n: int, group: list[int]) -> bool:
    """Whether part `n` is a piece of the digit that the parts of `group` form."""
    top, bottom = parts.top[group].min(), parts.bottom[group].max()
    left, right = parts.left[group].min(), parts.right[group].max()
    size = max(bottom - top, right - left)
    height, width = parts.bottom[n] - parts.top[n], parts.right[n] - parts.left[n]
    if max(height, width) < PIECE * size:
        return False
    if parts.mass[n] / parts.area[n] < FAINTER * parts.mass[group[0]] / parts.area[group[0]]:
        return False
    below = max(parts.top[n] - bottom, top - parts.bottom[n])
    beside = max(parts.left[n] - right, left - parts.right[n])
    common = min(right, parts.right[n]) - max(left, parts.left[n])
    if common > 0.5 * min(width, right - left):
        return bool(below < NEAR * size)
    return bool(height < 0.5 * (bottom - top) and below < 0 and beside < BESIDE * size)


def _found(labels: NDArray[np.int64], parts: Parts) -> Found:
    return Found(
        np.isin(labels, parts.label),
        int(parts.top.min()),
        int(parts.bottom.max()),
        int(parts.left.min()),
        int(parts.right.max()),
        float(parts.mass.sum()),
    )


def _in_order(digits: list[Found]) -> list[Found]:
    """Sorts digits by lines from the top, each line from the left."""
    lines: list[list[Found]] = []
    for digit in sorted(digits, key=lambda digit: digit.top + digit.bottom):
        middle = (digit.top + digit.bottom) / 2
        line = lines[-1] if lines else []
        if line and any(other.top < middle < other.bottom for other in line):
            line.append(digit)
        else:
            lines.append([digit])
    return [d for line in lines for d in sorted(line, key=lambda digit: digit.left + digit.right)]
