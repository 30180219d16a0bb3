"""LeNet-5 trained as in LeCun et al. 1998, as far as mini-batches allow."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from models import nets, schedules
from models.classifier import Classifier
from models.kernels.lenet5.design import Design, design_of_1998
from models.kernels.update import Update
from models.learners import Learner
from models.learners.compiled import Compiled, CompiledGradient
from models.learners.recorded import Recorded

PAPER, INK = -0.1, 1.175
"""Inputs for pixels 0 and 255: about mean 0 and variance 1 over the training images (II.B)."""


class LeNet1998(Classifier):
    """The network of LeCun et al. 1998 with its loss and the shape of its schedule.

    The paper trains on one image at a time, with a rate for each parameter from second derivatives
    (stochastic diagonal Levenberg-Marquardt); here training uses mini-batches with momentum.

    Args:
        loss: Maximum a posteriori (map, Eq. 9), or the penalty of the correct digit alone (mse,
            Eq. 8).
        rubbish: Penalty of the rubbish class, j in Eq. 9.
        lr: Learning rate of the first two passes.
        momentum: Momentum of SGD.
    """

    kind = nets.LeNet1998
    learners: ClassVar[tuple[type[Learner], ...]] = (Compiled, CompiledGradient, Recorded)
    backend = "composite"

    def __init__(
        self,
        loss: Literal["map", "mse"] = "map",
        rubbish: float = 0.1,
        lr: float = 0.001,
        momentum: float = 0.9,
    ) -> None:
        super().__init__(
            nets.LeNet1998(),
            classes=10,
            lr=lr,
            update=Update(momentum),
            schedule=schedules.passes,
        )
        if not 0 < rubbish < math.inf:
            raise ValueError(f"rubbish must be above 0, and finite, got {rubbish}")
        self.net: nets.LeNet1998
        self.loss: Literal["map", "mse"] = loss
        self.rubbish = rubbish
        self.save_hyperparameters()

    @property
    def design(self) -> Design:
        """The constants of this network for the compiled learner."""
        return design_of_1998(self.net.codes, self.loss, self.rubbish, PAPER, INK)

    def inputs(self, images: Tensor) -> Tensor:
        """Pixels (B, 28, 28) -> (B, 1, 32, 32) from -0.1 to 1.175, with a margin of 2."""
        x = images.unsqueeze(1).to(self.dtype) * ((INK - PAPER) / 255) + PAPER
        return F.pad(x, (2, 2, 2, 2), value=PAPER)

    def losses(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The loss of each image by Eq. 9 or Eq. 8: penalties (B, 10) -> (B,)."""
        right = outputs.gather(1, labels.unsqueeze(1)).squeeze(1)
        if self.loss == "mse":
            return right
        rubbish = outputs.new_full((len(outputs), 1), -self.rubbish)
        return right + torch.cat([rubbish, -outputs], 1).logsumexp(1)

    def predicted_and_true(self, outputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Predicts the class of the smallest penalty; the true class is the label."""
        return outputs.argmin(1), labels

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Softmax of the negated penalties (B, 10)."""
        return (-outputs).softmax(1)
