"""The networks, in plain torch. Layers carry the names of LeCun et al. 1998."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from models.bitmaps import bitmaps
from models.kernels.lenet5.design import AMPLITUDE, SLOPE
from models.kernels.table import C3_TABLE, full_table
from models.layers.conv_pool import ConvPool, PartialConv, conv_pool_twice
from models.layers.subsampling import Subsampling

C3 = Literal["original", "modern"]

C3_TABLES = {"original": C3_TABLE, "modern": full_table(6, 16)}


class LeNet5(nn.Module):
    """LeNet-5 with tanh, average pooling and a plain linear output.

    60,806 parameters with the original C3 (1,516 of them), 61,706 with the modern one (2,416).

    Args:
        c3: "original" connects the maps by Table I of LeCun et al. 1998, "modern" all of them.
        backend: version of the convolutional layers.
        classes: number of logits.
    """

    def __init__(self, c3: C3 = "original", backend: str = "auto", classes: int = 10) -> None:
        super().__init__()
        # C1 and C3 include the subsampling layers that follow them, S2 and S4.
        self.c1 = ConvPool(1, full_table(1, 6), padding=2, backend=backend)
        self.c3 = ConvPool(6, C3_TABLES[c3], backend=backend)
        self.c5 = nn.Linear(400, 120)
        self.f6 = nn.Linear(120, 84)
        self.output = nn.Linear(84, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 1, 28, 28) in [0, 1] -> logits (B, classes)."""
        return self.classify(self.features(x))

    def features(self, x: Tensor) -> Tensor:
        """Images (B, 1, 28, 28) -> S4's maps (B, 16, 5, 5), through S2's (B, 6, 14, 14)."""
        return conv_pool_twice(x, self.c1, self.c3)

    def classify(self, features: Tensor) -> Tensor:
        """S4's maps (B, 16, 5, 5) -> logits (B, classes)."""
        logits: Tensor = self.output(self._f6(features))
        return logits

    def embed(self, x: Tensor) -> Tensor:
        """Images (B, 1, 28, 28) -> F6's outputs (B, 84)."""
        return self._f6(self.features(x))

    def _f6(self, features: Tensor) -> Tensor:
        x = self.c5(features.flatten(1)).tanh()
        return torch.tanh(self.f6(x))


def squash(x: Tensor) -> Tensor:
    """1.7159 tanh(2x / 3): maps +-1 to itself and is most curved there (Appendix A)."""
    return AMPLITUDE * torch.tanh(x * SLOPE)


class LeNet1998(nn.Module):
    """60,000 parameters and 340,908 connections (LeCun et al. 1998, II.B, Figure 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.c1 = PartialConv(1, full_table(1, 6))
        self.s2 = Subsampling(6)
        self.c3 = PartialConv(6, C3_TABLE)
        self.s4 = Subsampling(16)
        self.c5 = nn.Linear(400, 120)
        self.f6 = nn.Linear(120, 84)
        self.codes: Tensor
        # Not persistent: the codes are drawn, not learnt.
        self.register_buffer("codes", bitmaps(), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws parameters uniformly from -2.4 / F to 2.4 / F, F being the fan-in (Appendix A)."""
        for convolution in (self.c1, self.c3):
            convolution.draw(2.4 / convolution.fan_in())
        with torch.no_grad():
            for layer, fan_in in ((self.s2, 4), (self.s4, 4), (self.c5, 400), (self.f6, 120)):
                for parameter in layer.parameters():
                    parameter.uniform_(-2.4 / fan_in, 2.4 / fan_in)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 1, 32, 32) -> penalties (B, 10), the smallest one for the predicted class.

        A penalty is the squared distance of F6's output to a digit's bitmap (Eq. 7).
        """
        x = squash(self.s2(squash(self.c1(x))))
        x = squash(self.s4(squash(self.c3(x))))
        x = squash(self.f6(squash(self.c5(x.flatten(1)))))
        return (x.unsqueeze(1) - self.codes).square().sum(2)


def connection_counts(net: LeNet1998) -> dict[str, int]:
    """Connections of each layer as the paper counts them: one for each product and each bias."""
    pixels = {"c1": 28 * 28, "c3": 10 * 10, "c5": 1, "f6": 1}
    counts = {
        name: places * sum(parameter.numel() for parameter in getattr(net, name).parameters())
        for name, places in pixels.items()
    }
    # The coefficient is one parameter, but four connections.
    subsampling = {"s2": 6 * 14 * 14 * 5, "s4": 16 * 5 * 5 * 5}
    return {**counts, **subsampling, "output": net.codes.numel()}


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
