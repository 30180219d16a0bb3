"""Parameters of image distortion: its limits, and the waves of its elastic part."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

OF_MAP = 6
"""Random numbers for the affine map of one image."""

WAVES = 5
"""Waves along either axis; for 28 pixels the next would have 1 % of the largest one's power."""

SMOOTHNESS = 4
"""Deviation in pixels of the Gaussian filter of Simard, Steinkraus and Platt 2003 (2)."""

LARGEST = 1000
"""Largest limit, in degrees or pixels: more than any image needs, and far from overflow."""


class Distortion(NamedTuple):
    """The limits of image distortion; each image draws its own values, uniformly.

    LeCun et al. 1998, III.A distort their training images likewise: shift, scale, squeeze, shear.
    The elastic part is that of Simard, Steinkraus and Platt 2003 (2).
    """

    rotation: float = 0
    """Largest rotation in degrees, either way."""
    scale: float = 0
    """Height and width have separate factors from 1 - scale to 1 + scale."""
    shear: float = 0
    """Largest horizontal shear, in columns per row."""
    shift: float = 0
    """Largest shift in pixels, in both directions."""
    elastic: float = 0
    """Root mean square of the smooth displacement in either direction, in pixels."""

    @property
    def numbers(self) -> int:
        """The number of random numbers for one image.

        >>> Distortion(shift=2).numbers, Distortion(elastic=1).numbers
        (6, 56)
        """
        return OF_MAP + (2 * WAVES**2 if self.elastic else 0)

    @property
    def kind(self) -> str:
        """A suffix that distinguishes kernels for this distortion by name.

        >>> NONE.kind, Distortion(shift=2).kind, Distortion(elastic=1).kind
        ('', ', distorted', ', distorted elastically')
        """
        return ", distorted" * any(self) + " elastically" * bool(self.elastic)

    def check(self) -> None:
        """Checks the limits.

        Raises:
            ValueError: a limit below 0 or above `LARGEST`, or a scale of 1 or more.

        >>> Distortion(scale=1).check()
        Traceback (most recent call last):
        ValueError: scale must be from 0 to below 1, got 1
        """
        for name, limit in zip(self._fields, self, strict=True):
            if not 0 <= limit <= LARGEST or (name == "scale" and limit >= 1):
                end = "below 1" if name == "scale" else LARGEST
                raise ValueError(f"{name} must be from 0 to {end}, got {limit}")


NONE = Distortion()
"""No distortion."""


def spectrum(size: int) -> list[tuple[float, float]]:
    """The components of noise that is smoothed by a Gaussian: factors and angular frequencies.

    With waves w_i(x) = factor_i cos(frequency_i (x + 1/2)) and u (WAVES, WAVES) drawn uniformly
    from -1 to 1, the sum of u_ij w_i(row) w_j(column) is such noise, mirrored beyond the borders;
    the mean of its squares, over draws and places, is 1.

    Smoothing only scales cosines: a Gaussian of deviation s multiplies one of angular frequency w
    by exp(-(s w)^2 / 2).

    >>> len(spectrum(28))
    5
    """
    frequencies = [math.pi / size * i for i in range(WAVES)]
    factors = [math.exp(-((SMOOTHNESS * frequency) ** 2) / 2) for frequency in frequencies]
    # The mean square is 1/2 for a cosine, 1 for the constant one, and 1/3 for u.
    whole = math.sqrt(math.sqrt(3) / sum(factor**2 for factor in factors))
    scaled = [whole * factor * (math.sqrt(2) if i else 1) for i, factor in enumerate(factors)]
    return list(zip(scaled, frequencies, strict=True))


def waves(size: int) -> np.ndarray[Any, Any]:
    """The waves of `spectrum` at each pixel: (WAVES, size) float32."""
    places = np.arange(size) + 0.5
    lines = [factor * np.cos(frequency * places) for factor, frequency in spectrum(size)]
    return np.array(lines, np.float32)
