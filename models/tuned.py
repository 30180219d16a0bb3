"""LeNet-5 with today's recipe: the network of 1998, another way to train it."""

from __future__ import annotations

import math

import numpy as np
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor

from models import nets
from models.kernels.dispatch import Backend
from models.layers.affine import Affine, distort, draw
from models.learners.compiled import CompiledGradient
from models.lenet import LeNet5

MEAN, DEVIATION = 0.1307, 0.3081
"""Of MNIST's training pixels in [0, 1]."""


class TunedLeNet5(LeNet5):
    """LeNet-5 trained with momentum, a cosine schedule and distorted images.

    The learning rate rises over the first epoch and falls to 0 at the end of the last one
    (Loshchilov and Hutter 2017, 3). Each image is distorted anew each time it is learnt from; what
    is drawn depends on the seed, the iteration and the rank alone, so that a continued run is the
    same run.

    Args:
        c3: Connections of C3: by Table I of LeCun et al. 1998 (original), or all of them (modern).
        lr: Highest learning rate.
        momentum: Of Nesterov's kind.
        weight_decay: Pull of the weights towards 0; distorted images need none.
        rotation: Distortion: degrees at most, either way.
        scale: Distortion: factor of height and of width, from 1 - scale to 1 + scale.
        shear: Distortion: columns moved sideways per row, at most.
        shift: Distortion: pixels at most, in both directions.
        standardize: Pixels of mean 0 and variance 1 over the training images, instead of 0 to 1.
        backend: Version of the convolutional layers; auto takes the fastest that can run.
    """

    learners = (CompiledGradient,)

    def __init__(
        self,
        c3: nets.C3 = "original",
        lr: float = 0.05,
        momentum: float = 0.9,
        weight_decay: float = 0,
        rotation: float = 15,
        scale: float = 0.15,
        shear: float = 0.2,
        shift: float = 2,
        standardize: bool = False,
        backend: Backend = "auto",
    ) -> None:
        super().__init__(c3, lr, backend)
        if not 0 < momentum < 1:
            raise ValueError(f"momentum must be between 0 and 1, got {momentum}")
        if weight_decay < 0:
            raise ValueError(f"weight_decay must be 0 or more, got {weight_decay}")
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.standardize = standardize
        self.limits = Affine(rotation, scale, shear, shift)
        if min(self.limits) < 0 or scale >= 1:
            raise ValueError(f"distortions must be 0 or more, and scale below 1: {self.limits}")
        self.save_hyperparameters()

    def on_train_start(self) -> None:
        """Looks up how long the schedule is."""
        super().on_train_start()
        if self.trainer.max_epochs in (None, -1):
            raise MisconfigurationException(
                "the schedule needs a last epoch: set --trainer.max_epochs"
            )
        self._epoch = self.iterations_per_epoch()
        self._last = self._epoch * self.trainer.max_epochs

    def learning_rates(self, count: int) -> Tensor:
        """Up over one epoch, and down along a cosine to 0."""
        done = self.global_step + torch.arange(count, dtype=torch.float64)
        warm_up = ((done + 1) / self._epoch).clamp(max=1)
        return self.lr * warm_up * (1 + (math.pi * done / self._last).cos()) / 2

    def inputs(self, images: Tensor) -> Tensor:
        """Pixels (B, 28, 28) uint8 -> (B, 1, 28, 28), distorted while training."""
        x = super().inputs(images)
        if self.training and any(self.limits):
            x = self._distort(x)
        return (x - MEAN) / DEVIATION if self.standardize else x

    def _distort(self, x: Tensor) -> Tensor:
        # Anew for each iteration: no state to keep, whatever the block size. The last number sets
        # these streams apart from those of the data's order.
        rng = np.random.default_rng((torch.initial_seed(), self.global_step, self.global_rank, 1))
        return distort(x, draw(self.limits, len(x), x.shape[-1], rng))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Gradient descent with Nesterov's momentum."""
        return torch.optim.SGD(
            self.parameters(),
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            nesterov=True,
        )
