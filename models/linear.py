"""One linear layer that tells two digits apart."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from models import nets
from models.classifier import Classifier
from models.losses import LOSSES


class Linear(Classifier):
    """A linear classifier on raw pixels 0..255 with labels -1 and +1.

    Args:
        loss: Minimised by the training; mse-as-printed keeps the misprint of the document.
        lr: Learning rate.
    """

    backend = "autograd"  # what runs it, for the record

    def __init__(
        self, loss: Literal["logistic", "mse", "mse-as-printed"] = "logistic", lr: float = 1e-4
    ) -> None:
        super().__init__(nets.LinearClassifier(), classes=2, lr=lr)
        self.loss = LOSSES[loss]
        self.save_hyperparameters()

    def inputs(self, images: Tensor) -> Tensor:
        """Pixels (B, 28, 28) uint8 -> (B, 1, 28, 28) in [0, 255]."""
        return images.unsqueeze(1).to(self.dtype)

    def losses(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The chosen loss of margins (B,) and labels -1 or +1 (B,) -> (B,)."""
        return self.loss(outputs, labels)

    def classes(self, outputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """An image is right where z y >= 0; class 1 is the label +1."""
        right = outputs * labels >= 0
        predicted = torch.where(right, labels, -labels)
        return (predicted > 0).long(), (labels > 0).long()
