"""The networks, in plain torch. Layers carry the names of LeCun et al. 1998."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from models.kernels.table import C3_TABLE, full_table
from models.layers.conv_pool import ConvPool, conv_pool_twice

C3 = Literal["original", "modern"]

C3_TABLES = {"original": C3_TABLE, "modern": full_table(6, 16)}


class LeNet5(nn.Module):
    """LeNet-5 with tanh, average pooling and a plain linear output.

    60,806 parameters with the original C3 (1,516 of them), 61,706 with the modern one (2,416).

    Args:
        c3: "original" connects the maps by Table I of LeCun et al. 1998, "modern" all of them.
        backend: which version of the convolutional layers runs.
    """

    def __init__(self, c3: C3 = "original", backend: str = "auto") -> None:
        super().__init__()
        # Each with the subsampling layer behind it, S2 and S4.
        self.c1 = ConvPool(1, full_table(1, 6), padding=2, backend=backend)
        self.c3 = ConvPool(6, C3_TABLES[c3], backend=backend)
        self.c5 = nn.Linear(400, 120)
        self.f6 = nn.Linear(120, 84)
        self.output = nn.Linear(84, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 1, 28, 28) in [0, 1] -> logits (B, 10)."""
        return self.classify(self.features(x))

    def features(self, x: Tensor) -> Tensor:
        """Images (B, 1, 28, 28) -> S4's maps (B, 16, 5, 5), through S2's (B, 6, 14, 14)."""
        return conv_pool_twice(x, self.c1, self.c3)

    def classify(self, features: Tensor) -> Tensor:
        """S4's maps (B, 16, 5, 5) -> logits (B, 10)."""
        logits: Tensor = self.output(self._f6(features))
        return logits

    def embed(self, x: Tensor) -> Tensor:
        """Images (B, 1, 28, 28) -> what F6 makes of them (B, 84)."""
        return self._f6(self.features(x))

    def _f6(self, features: Tensor) -> Tensor:
        x = self.c5(features.flatten(1)).tanh()
        return torch.tanh(self.f6(x))


class LinearClassifier(nn.Module):
    """One margin for each image: 784 weights and a bias.

    Attributes:
        scale: (784,) pixels are multiplied by it; not learnt.
    """

    def __init__(self, pixels: int = 784) -> None:
        super().__init__()
        self.output = nn.Linear(pixels, 1)
        self.scale: Tensor
        self.register_buffer("scale", torch.ones(pixels))

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 1, 28, 28) -> margins z (B,)."""
        margins: Tensor = self.output(x.flatten(1) * self.scale).squeeze(1)
        return margins
