"""The losses of the two-class comparison, for a margin z and a label y of -1 or +1.

With s the logistic sigmoid, m = y z, and w = s(-m) the probability given to the wrong class, all
of them are sums of the same three terms:

    a log(1 + e^-m) + b w + c w^2

so one table of coefficients (a, b, c) serves the autograd version and the compiled ones.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from models.kernels.looks import send

Amounts = tuple[float, float, float]


class Loss(NamedTuple):
    """A loss, as the coefficients of log(1 + e^-m), w and w^2 for each label."""

    minus: Amounts
    """For y = -1."""
    plus: Amounts
    """For y = +1."""

    def __call__(self, z: Tensor, y: Tensor) -> Tensor:
        """The loss of each image (B,), finite at any margin: raw pixels give z in the hundreds.

        >>> LOSSES["logistic"](torch.tensor([0.0, 800.0]), torch.tensor([1, -1]))
        tensor([6.9315e-01, 8.0000e+02])
        >>> LOSSES["mse"](torch.tensor([0.0, 800.0]), torch.tensor([1, -1]))
        tensor([0.5000, 2.0000])
        """
        up = (y > 0).to(z.dtype)
        # Python numbers: a tensor made of them would synchronise with a GPU in every iteration.
        log, linear, square = (
            minus + (plus - minus) * up for minus, plus in zip(self.minus, self.plus, strict=True)
        )
        wrong = torch.sigmoid(-y * z)
        # Not softplus(-m): that drops e^-m beyond 20.
        return linear * wrong + square * wrong.square() - log * F.logsigmoid(y * z)

    def amounts(self, like: Tensor) -> Tensor:
        """The coefficients (2, 3), minus first, with the type and the device of `like`."""
        return send(torch.tensor([self.minus, self.plus], dtype=like.dtype), like.device)


LOSSES = {
    # -log s(y z)
    "logistic": Loss((1, 0, 0), (1, 0, 0)),
    # 1/2 (1-y) [(1 - s(-z))^2 + s(z)^2] + 1/2 (1+y) [s(-z)^2 + (1 - s(z))^2]: twice w^2
    "mse": Loss((0, 0, 2), (0, 0, 2)),
    # As in the code of the source document, which lacks the square on the first s(z).
    "mse-as-printed": Loss((0, 1, 1), (0, 0, 2)),
}
