"""In what the two nets with LeNet-5's layers differ, as data; no compiled code is loaded for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from torch import Tensor

from models.kernels.doors import LAYERS, LAYERS_OF_1998

LOGITS, MAP, MSE = range(3)
"""What the last layer gives and the loss compares: see `head.py`."""

AMPLITUDE, SLOPE = 1.7159, 2 / 3
"""Of the tanh of 1998, `nets.squash`."""

SIZE = 28
"""Height and width of the images that are bytes."""

WIDTHS = (400, 120, 84)
"""How many numbers C5 reads of an image, and how many C5 and F6 give."""


class Design(NamedTuple):
    """A net of C1, S2, C3, S4, C5 and F6, and what the loss makes of F6's output."""

    amplitude: float = 1.0
    """Layers are squashed by amplitude * tanh(slope * z)."""
    slope: float = 1.0
    paper: float = 0.0
    """What the byte 0 becomes"""
    ink: float = 1.0
    """What the byte 255 becomes"""
    margin: int = 0
    """Pixels of paper on each side of an image"""
    loss: int = LOGITS
    rubbish: float = -float("inf")
    """The logit of the class that none of the images is of"""
    codes: Tensor | None = None
    """(classes, 84) what F6's output is compared with; None where a layer of logits is learnt"""

    @property
    def unit(self) -> float:
        """How many steps of a byte are 1."""
        return 255 / (self.ink - self.paper)

    @property
    def frame(self) -> float:
        """What lies around an image: paper, or the zeros with which a convolution pads."""
        return self.paper if self.margin else 0.0

    @property
    def layers(self) -> tuple[str, ...]:
        """Those with parameters, in order."""
        return LAYERS if self.codes is None else LAYERS_OF_1998

    @property
    def learns_pooling(self) -> bool:
        """Whether S2 and S4 have parameters."""
        return "s2" in self.layers


LENET5 = Design()


def design_of_1998(
    codes: Tensor, loss: Literal["map", "mse"], rubbish: float, paper: float, ink: float
) -> Design:
    """That of LeCun et al. 1998, as `nets.LeNet1998` has it.

    Args:
        codes: (classes, 84) bitmaps.
        loss: by maximum a posteriori (map, Eq. 9), or the right penalty alone (mse, Eq. 8).
        rubbish: j in Eq. 9.
        paper: what pixel 0 becomes.
        ink: what pixel 255 becomes.

    Raises:
        ValueError: no such loss.
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
