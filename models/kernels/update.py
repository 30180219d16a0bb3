"""The settings of a step of gradient descent."""

from __future__ import annotations

import math
from typing import NamedTuple


class Update(NamedTuple):
    """The settings of a step beside its learning rate, as in `torch.optim.SGD`."""

    momentum: float = 0
    nesterov: bool = False
    """Whether to use Nesterov momentum."""
    weight_decay: float = 0

    def check(self) -> None:
        """Checks the values.

        Raises:
            ValueError: a value is out of range, or nesterov is set without momentum.

        >>> Update(momentum=1).check()
        Traceback (most recent call last):
        ValueError: momentum must be from 0 to below 1, got 1
        """
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must be from 0 to below 1, got {self.momentum}")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay must be 0 or more, and finite, got {self.weight_decay}")
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")


PLAIN = Update()
"""Plain gradient descent."""
