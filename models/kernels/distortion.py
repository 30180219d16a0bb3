"""How images are distorted: the limits, and the waves that bend them."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

OF_MAP = 6
"""Random numbers that the map of one image takes."""

WAVES = 5
"""Along either side. Of 28 pixels, the next would carry a hundredth of the largest one's power."""

SMOOTHNESS = 4
"""Pixels: deviation of the Gaussian that Simard, Steinkraus and Platt 2003 (2) smooth by."""

LARGEST = 1000
"""Of the limits, in degrees and pixels: more than any image needs, and far from overflow."""


class Distortion(NamedTuple):
    """How far images are distorted; each draws its own values, uniformly.

    LeCun et al. 1998, III.A distort their training images likewise: shift, scale, squeeze, shear.
    The elastic part is that of Simard, Steinkraus and Platt 2003 (2).
    """

    rotation: float = 0
    """Degrees at most, either way."""
    scale: float = 0
    """Of height and width apart: factors from 1 - scale to 1 + scale."""
    shear: float = 0
    """Columns moved sideways per row, at most."""
    shift: float = 0
    """Pixels at most, in both directions."""
    elastic: float = 0
    """Pixels, root mean square, that places move smoothly in either direction."""

    @property
    def numbers(self) -> int:
        """Random numbers that the distortion of one image takes.

        >>> Distortion(shift=2).numbers, Distortion(elastic=1).numbers
        (6, 56)
        """
        return OF_MAP + (2 * WAVES**2 if self.elastic else 0)

    @property
    def kind(self) -> str:
        """What tells code for it from code for others, to be added to a name.

        >>> NONE.kind, Distortion(shift=2).kind, Distortion(elastic=1).kind
        ('', ', distorted', ', distorted elastically')
        """
        return ", distorted" * any(self) + " elastically" * bool(self.elastic)

    def check(self) -> None:
        """Refuses what is no distortion.

        Raises:
            ValueError: a limit below 0 or above `LARGEST`, or a scale that leaves nothing.

        >>> Distortion(scale=1).check()
        Traceback (most recent call last):
        ValueError: scale must be from 0 to below 1, got 1
        """
        for name, limit in zip(self._fields, self, strict=True):
            if not 0 <= limit <= LARGEST or (name == "scale" and limit >= 1):
                end = "below 1" if name == "scale" else LARGEST
                raise ValueError(f"{name} must be from 0 to {end}, got {limit}")


NONE = Distortion()
"""Images as they are."""


def spectrum(size: int) -> list[tuple[float, float]]:
    """What noise that is smoothed by a Gaussian is made of: factors and angular frequencies.

    With waves w_i(x) = factor_i cos(frequency_i (x + 1/2)) and u (WAVES, WAVES) drawn uniformly
    from -1 to 1, the sum of u_ij w_i(row) w_j(column) is such noise, mirrored beyond the borders;
    the mean of its squares, over draws and places, is 1.

    Smoothing leaves cosines what they are but for a factor: a Gaussian of deviation s makes
    exp(-(s w)^2 / 2) of an angular frequency w.

    >>> len(spectrum(28))
    5
    """
    frequencies = [math.pi / size * i for i in range(WAVES)]
    factors = [math.exp(-((SMOOTHNESS * frequency) ** 2) / 2) for frequency in frequencies]
    # The mean square of a cosine is a half, but 1 of the constant one; of u it is a third.
    whole = math.sqrt(math.sqrt(3) / sum(factor**2 for factor in factors))
    scaled = [whole * factor * (math.sqrt(2) if i else 1) for i, factor in enumerate(factors)]
    return list(zip(scaled, frequencies, strict=True))


def waves(size: int) -> np.ndarray[Any, Any]:
    """Those of `spectrum` at each place: (WAVES, size) float32."""
    places = np.arange(size) + 0.5
    lines = [factor * np.cos(frequency * places) for factor, frequency in spectrum(size)]
    return np.array(lines, np.float32)
