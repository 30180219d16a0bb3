"""The losses of the two-class comparison, for a margin z and a label y of -1 or +1.

s is the logistic sigmoid. Every function maps z (B,) and y (B,) to one loss per image (B,) and is
finite at any margin: raw pixels give margins in the hundreds.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def logistic(z: Tensor, y: Tensor) -> Tensor:
    """-log s(y z).

    >>> logistic(torch.tensor([0.0, 800.0]), torch.tensor([1, -1]))
    tensor([6.9315e-01, 8.0000e+02])
    """
    return F.softplus(-y * z)


def mse(z: Tensor, y: Tensor) -> Tensor:
    """Squared distance of both class probabilities from the label, which is 2 (1 - s(y z))^2.

    In full: 1/2 (1-y) [(1 - s(-z))^2 + s(z)^2] + 1/2 (1+y) [s(-z)^2 + (1 - s(z))^2].

    >>> mse(torch.tensor([0.0, 800.0]), torch.tensor([1, -1]))
    tensor([0.5000, 2.0000])
    """
    return 2 * torch.sigmoid(-y * z).square()


def mse_as_printed(z: Tensor, y: Tensor) -> Tensor:
    """`mse` as the source document prints it, without the square on the first s(z).

    For y = -1 it is s(z)^2 + s(z); for y = +1 it is `mse`.

    >>> mse_as_printed(torch.tensor([0.0, 0.0]), torch.tensor([1, -1]))
    tensor([0.5000, 0.7500])
    """
    wrong = torch.sigmoid(-y * z)
    return torch.where(y > 0, 2 * wrong.square(), wrong.square() + wrong)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "logistic": logistic,
    "mse": mse,
    "mse-as-printed": mse_as_printed,
}
