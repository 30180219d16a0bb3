"""One linear layer that tells two digits apart."""

from __future__ import annotations

import math
from functools import partial
from typing import Literal, Protocol

import torch
from torch import Tensor

from models import nets, schedules
from models.classifier import Classifier
from models.kernels import doors, sgd
from models.learners.sequential import Sequential
from models.losses import LOSSES
from models.schedules import Schedule

# Added to a pixel's standard deviation, so that pixels that are rarely on do not dominate.
SMOOTHING = 25.5


class Pixels(Protocol):
    """The interface of the data module that is used here."""

    def pixel_deviation(self) -> Tensor:
        """The standard deviation of each pixel over the training images, (H, W)."""


class Linear(Classifier):
    """A linear classifier on pixels 0..255 with labels -1 and +1.

    Batch size 1 runs as one compiled loop over a block; other sizes run through autograd.

    Args:
        loss: Training loss; mse-as-printed reproduces a misprint in the document's code.
        lr: Learning rate.
        decay_iterations: Iterations over which the learning rate falls linearly to 0; it is
            constant by default.
        scale: Factor of the pixels; per-pixel divides each by its standard deviation over the
            training images plus 25.5.
        backend: Version of the loop over batches of size 1; auto takes the fastest that can run.
    """

    learners = (Sequential,)

    def __init__(
        self,
        loss: Literal["logistic", "mse", "mse-as-printed"] = "logistic",
        lr: float = 1e-4,
        decay_iterations: int | None = None,
        scale: float | Literal["per-pixel"] = 1.0,
        backend: sgd.Backend = "auto",
    ) -> None:
        if decay_iterations is not None and decay_iterations < 1:
            raise ValueError(f"decay_iterations must be 1 or more, got {decay_iterations}")
        schedule: Schedule = schedules.constant
        if decay_iterations is not None:
            schedule = partial(schedules.falling, last=decay_iterations)
        super().__init__(nets.LinearClassifier(), classes=2, lr=lr, schedule=schedule)
        if scale != "per-pixel" and not 0 < scale < math.inf:
            raise ValueError(f"scale must be above 0, and finite, got {scale}")
        self.labels = (-1, 1)
        self.net: nets.LinearClassifier
        self.loss = LOSSES[loss]
        self.per_pixel = scale == "per-pixel"
        if scale != "per-pixel":
            self.net.scale.fill_(scale)
        self.save_hyperparameters()

    @property
    def backend(self) -> str:
        """The version that runs batches of size 1, as recorded with the results."""
        weight = next(self.net.parameters())
        return sgd.choose(self.hparams["backend"], weight.device, weight.dtype)

    def setup(self, stage: str) -> None:
        """Adapts the pixel scale to the training images."""
        if stage == "fit":
            # Set by fit(model, datamodule=...).
            self.adapt_scale(getattr(self.trainer, "datamodule"))  # noqa: B009

    def adapt_scale(self, data: Pixels) -> None:
        """Sets a per-pixel scale from the training images."""
        if self.per_pixel:
            deviation = data.pixel_deviation()
            doors.check_tensor("pixel deviations", deviation, torch.float32, self.pixels)
            self.net.scale.copy_(1 / (deviation.flatten() + SMOOTHING))

    def inputs(self, images: Tensor) -> Tensor:
        """Pixels (B, 28, 28) -> (B, 1, 28, 28)."""
        return images.unsqueeze(1).to(self.dtype)

    def losses(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The chosen loss of margins (B,) and labels -1 or +1 (B,) -> (B,)."""
        return self.loss(outputs, labels)

    def predicted_and_true(self, outputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Counts an image as correct if z y >= 0; class 1 is the label +1."""
        right = outputs * labels >= 0
        predicted = torch.where(right, labels, -labels)
        return (predicted > 0).long(), (labels > 0).long()

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Probabilities of the labels -1 and +1: margins (B,) -> (B, 2)."""
        margins = outputs.unsqueeze(1)
        return torch.cat([-margins, margins], 1).sigmoid()
