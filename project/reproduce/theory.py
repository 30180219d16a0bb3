"""The derivatives of a multilayer perceptron, and the cost of a chain of convolutions.

The perceptron has layers l = 1..L. With y_0 its input,

    z_l = A_l y_{l-1} + b_l,    y_l = s(z_l).

Shapes: n_l is the width of layer l, so y_l (n_l,), A_l (n_l, n_{l-1}), b_l (n_l,). A derivative
dy/dp has the shape of y followed by the shape of p.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Activation(NamedTuple):
    """A function s and its derivative s', both elementwise."""

    function: Callable[[Tensor], Tensor]
    derivative: Callable[[Tensor], Tensor]


def _softplus(z: Tensor) -> Tensor:
    # torch's own returns z itself above 20.
    return torch.logaddexp(z, torch.zeros_like(z))


def _normal_density(z: Tensor) -> Tensor:
    return torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)


def _step(z: Tensor) -> Tensor:
    return (z > 0).to(z.dtype)


ACTIVATIONS = {
    "identity": Activation(lambda z: z, torch.ones_like),
    "sigmoid": Activation(torch.sigmoid, lambda z: torch.sigmoid(z) * torch.sigmoid(-z)),
    "tanh": Activation(torch.tanh, lambda z: 1 - torch.tanh(z).square()),
    "relu": Activation(torch.relu, _step),
    "leaky_relu": Activation(F.leaky_relu, lambda z: 0.01 + 0.99 * _step(z)),
    "elu": Activation(F.elu, lambda z: torch.exp(z.clamp(max=0))),
    "softplus": Activation(_softplus, torch.sigmoid),
    "silu": Activation(F.silu, lambda z: torch.sigmoid(z) * (1 + z * torch.sigmoid(-z))),
    "gelu": Activation(F.gelu, lambda z: torch.special.ndtr(z) + z * _normal_density(z)),
}


class Perceptron(NamedTuple):
    """A perceptron at one input: everything that its derivatives are made of."""

    weights: Sequence[Tensor]
    """A_1 .. A_L"""
    y: list[Tensor]
    """y_0 .. y_L"""
    slopes: list[Tensor]
    """s'(z_1) .. s'(z_L)"""

    @property
    def output(self) -> Tensor:
        """y_L (n_L,)."""
        return self.y[-1]


def perceptron(
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    x: Tensor,
    activation: str = "tanh",
    last: str | None = None,
) -> Perceptron:
    """Runs a perceptron.

    Args:
        weights: A_1 .. A_L.
        biases: b_1 .. b_L.
        x: (n_0,) the input y_0.
        activation: a key of `ACTIVATIONS`.
        last: activation of the last layer, by default the same.
    """
    names = [activation] * (len(weights) - 1) + [last or activation]
    y, slopes = [x], []
    for a, b, name in zip(weights, biases, names, strict=True):
        s, s_prime = ACTIVATIONS[name]
        z = a @ y[-1] + b
        y.append(s(z))
        slopes.append(s_prime(z))
    return Perceptron(weights, y, slopes)


def layer_by_input(net: Perceptron, layer: int) -> Tensor:
    """dy_l/dy_{l-1} = diag(s'(z_l)) A_l: (n_l, n_{l-1})."""
    _check(net, layer)
    return net.slopes[layer - 1][:, None] * net.weights[layer - 1]


def layer_by_bias(net: Perceptron, layer: int) -> Tensor:
    """dy_l/db_l = diag(s'(z_l)): (n_l, n_l)."""
    _check(net, layer)
    return torch.diag(net.slopes[layer - 1])


def output_by_layer(net: Perceptron, layer: int) -> Tensor:
    """dy_L/dy_l = dy_L/dy_{L-1} ... dy_{l+1}/dy_l: (n_L, n_l), the identity for l = L."""
    product = torch.eye(len(net.output), dtype=net.output.dtype)
    for later in range(len(net.weights), layer, -1):
        product = product @ layer_by_input(net, later)
    return product


def output_by_bias(net: Perceptron, layer: int) -> Tensor:
    """dy_L/db_l = dy_L/dy_l diag(s'(z_l)): (n_L, n_l)."""
    _check(net, layer)
    return output_by_layer(net, layer) * net.slopes[layer - 1]


def output_by_weight(net: Perceptron, layer: int) -> Tensor:
    """dy_L/dA_l, whose entry (i, j, k) is (dy_L/db_l)[i, j] y_{l-1}[k]: (n_L, n_l, n_{l-1}).

    Each row i is the outer product of a row of dy_L/db_l and y_{l-1}^T.
    """
    return output_by_bias(net, layer)[:, :, None] * net.y[layer - 1]


def _check(net: Perceptron, layer: int) -> None:
    if not 1 <= layer <= len(net.weights):
        raise ValueError(f"layer must be 1 to {len(net.weights)}, got {layer}")


def multiplications(layers: Iterable[nn.Conv2d], height: int, width: int) -> list[int]:
    """Counts multiplications of a chain's convolutions for an image: each weight at each output.

    Args:
        layers: each reads the output of the one before it.
        height: height of the image that the first one reads.
        width: width of the same.

    >>> multiplications([nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 16, 5)], 28, 28)
    [117600, 1382400]
    """
    counts = []
    for layer in layers:
        # On the meta device a convolution computes its shape and nothing else.
        image = torch.empty(1, layer.in_channels, height, width, device="meta")
        height, width = copy.deepcopy(layer).to("meta")(image).shape[2:]
        counts.append(layer.weight.numel() * height * width)
    return counts
