"""How images are distorted: the limits, and the waves that bend them."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

OF_MAP = 6
"""Random numbers that the map of one image takes."""

WAVES = 5
"""Along either side of an image; the next would carry a hundredth of the largest one's power."""

SMOOTHNESS = 4
"""Pixels: deviation of the Gaussian that Simard, Steinkraus and Platt 2003 (2) smooth by."""


class Distortion(NamedTuple):
    """How far images are distorted at most; each image draws its own values, uniformly.

    LeCun et al. 1998, III.A distort their training images likewise: shift, scale, squeeze, shear.
    The elastic part is that of Simard, Steinkraus and Platt 2003 (2).
    """

    rotation: float = 0
    """Degrees, either way."""
    scale: float = 0
    """Of height and width apart: factors from 1 - scale to 1 + scale."""
    shear: float = 0
    """Columns moved sideways per row."""
    shift: float = 0
    """Pixels, in both directions."""
    elastic: float = 0
    """Pixels, on average (of the squares), that places move in either direction, smoothly."""

    @property
    def numbers(self) -> int:
        """Random numbers that the distortion of one image takes.

        >>> Distortion(shift=2).numbers, Distortion(elastic=1).numbers
        (6, 56)
        """
        return OF_MAP + (2 * WAVES**2 if self.elastic else 0)

    def check(self) -> None:
        """Refuses what is no distortion.

        Raises:
            ValueError: a limit below 0, or a scale that leaves nothing.

        >>> Distortion(scale=1).check()
        Traceback (most recent call last):
        ValueError: scale must be from 0 to below 1, got 1
        """
        for name, limit in zip(self._fields, self, strict=True):
            if not 0 <= limit < math.inf or (name == "scale" and limit >= 1):
                below = " to below 1" if name == "scale" else " or more, and finite"
                start = "from 0" if name == "scale" else "0"
                raise ValueError(f"{name} must be {start}{below}, got {limit}")


NONE = Distortion()
"""Images as they are."""


def waves(size: int, dtype: torch.dtype = torch.float32, device: Any = None) -> Tensor:
    """What noise that is smoothed by a Gaussian is made of: (WAVES, size).

    With u (WAVES, WAVES) drawn uniformly from -1 to 1, waves.T @ u @ waves (size, size) is such
    noise, mirrored beyond the borders; the mean of its squares, over draws and places, is 1.

    Cosines, which smoothing leaves what they are but for a factor: a Gaussian of deviation s makes
    exp(-(s w)^2 / 2) of an angular frequency w. Computed where they are needed, since a recording
    may copy nothing to its device.

    >>> waves(28).shape
    torch.Size([5, 28])
    """
    frequencies = math.pi / size * torch.arange(WAVES, dtype=dtype, device=device)
    places = torch.arange(size, dtype=dtype, device=device) + 0.5
    factors = torch.exp(-((SMOOTHNESS * frequencies) ** 2) / 2)
    # The mean square of a cosine is a half, but 1 of the constant one.
    factors[1:] *= math.sqrt(2)
    cosines = factors.unsqueeze(1) * torch.outer(frequencies, places).cos()
    # That of a number from -1 to 1 is a third.
    return cosines * (math.sqrt(3) / cosines.square().mean(1).sum()).sqrt()
