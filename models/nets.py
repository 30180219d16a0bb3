"""The networks, in plain torch. Layers carry the names of LeCun et al. 1998."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from models.kernels.table import C3_TABLE, full_table
from models.layers.partial_conv import PartialConv2d

C3 = Literal["original", "modern"]

C3_TABLES = {"original": C3_TABLE, "modern": full_table(6, 16)}


class LeNet5(nn.Module):
    """LeNet-5 with tanh, average pooling and a plain linear output.

    60,806 parameters with the original C3 (1,516 of them), 61,706 with the modern one (2,416).

    Args:
        c3: "original" connects the maps by Table I of LeCun et al. 1998, "modern" all of them.
        backend: which version of the partial convolution runs it.
    """

    def __init__(self, c3: C3 = "original", backend: str = "auto") -> None:
        super().__init__()
        self.c1 = PartialConv2d(1, full_table(1, 6), padding=2, backend=backend)
        self.s2 = nn.AvgPool2d(2)
        self.c3 = PartialConv2d(6, C3_TABLES[c3], backend=backend)
        self.s4 = nn.AvgPool2d(2)
        self.c5 = nn.Linear(400, 120)
        self.f6 = nn.Linear(120, 84)
        self.output = nn.Linear(84, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 1, 28, 28) in [0, 1] -> logits (B, 10)."""
        x = self.s2(self.c1(x).tanh()).tanh()  # (B, 6, 14, 14)
        x = self.s4(self.c3(x).tanh()).tanh()  # (B, 16, 5, 5)
        x = self.c5(x.flatten(1)).tanh()
        x = self.f6(x).tanh()
        logits: Tensor = self.output(x)
        return logits


class LinearClassifier(nn.Module):
    """One margin for each image: 784 weights and a bias."""

    def __init__(self, pixels: int = 784) -> None:
        super().__init__()
        self.output = nn.Linear(pixels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 1, 28, 28) -> margins z (B,)."""
        margins: Tensor = self.output(x.flatten(1)).squeeze(1)
        return margins
