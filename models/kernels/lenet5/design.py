"""The differences of the two networks with LeNet-5's layers, as data without compiled code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from torch import Tensor

from models.kernels.doors import LAYERS, LAYERS_OF_1998

LOGITS, MAP, MSE = range(3)
"""Kinds of output layer and loss; see `head.py`."""

AMPLITUDE, SLOPE = 1.7159, 2 / 3
"""Constants of the activation of 1998, `nets.squash`."""

SIZE = 28
"""Height and width of an image of bytes."""

WIDTHS = (400, 120, 84)
"""How many numbers C5 reads of an image, and how many C5 and F6 give."""


class Design(NamedTuple):
    """The constants of a network of C1, S2, C3, S4, C5 and F6, and of the loss of F6's output."""

    amplitude: float = 1.0
    """The activation of a layer is amplitude * tanh(slope * z)."""
    slope: float = 1.0
    paper: float = 0.0
    """The input for byte 0"""
    ink: float = 1.0
    """The input for byte 255"""
    margin: int = 0
    """Pixels of paper on each side of an image"""
    loss: int = LOGITS
    rubbish: float = -float("inf")
    """The logit of the rubbish class, to which no image belongs"""
    codes: Tensor | None = None
    """(classes, 84) what F6's output is compared with; None if an output layer is learnt"""

    @property
    def unit(self) -> float:
        """The difference in bytes that is an input of 1."""
        return 255 / (self.ink - self.paper)

    @property
    def frame(self) -> float:
        """The value around an image: paper, or the zeros of a convolution's padding."""
        return self.paper if self.margin else 0.0

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers with parameters, in order."""
        return LAYERS if self.codes is None else LAYERS_OF_1998

    @property
    def learns_pooling(self) -> bool:
        """Whether S2 and S4 have parameters."""
        return "s2" in self.layers


LENET5 = Design()


def design_of_1998(
    codes: Tensor, loss: Literal["map", "mse"], rubbish: float, paper: float, ink: float
) -> Design:
    """The design of LeCun et al. 1998, that of `nets.LeNet1998`.

    Args:
        codes: (classes, 84) bitmaps.
        loss: maximum a posteriori (map, Eq. 9), or the correct penalty alone (mse, Eq. 8).
        rubbish: j in Eq. 9.
        paper: the input for pixel 0.
        ink: the input for pixel 255.

    Raises:
        ValueError: there is no such loss.
    """
    if loss not in ("map", "mse"):
        raise ValueError(f"expected loss of map or mse, got {loss}")
    return Design(
        amplitude=AMPLITUDE,
        slope=SLOPE,
        paper=paper,
        ink=ink,
        margin=2,
        loss=MAP if loss == "map" else MSE,
        rubbish=-rubbish,
        codes=codes,
    )


def check_widths(parameters: Sequence[Tensor]) -> None:
    """Refuses other dense layers than the published ones, for which CUDA programs are made.

    Args:
        parameters: weight and bias of C1, C3, C5, F6 and the output, in order.

    Raises:
        ValueError: C5 or F6 has another width.
    """
    c5, f6 = parameters[4], parameters[6]
    found = (c5.shape[1], c5.shape[0], f6.shape[0])
    if found != WIDTHS:
        raise ValueError(f"expected dense layers of {WIDTHS} numbers, got {found}")
