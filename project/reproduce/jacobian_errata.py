"""Problem 6: what does not hold as printed, by finite differences and by shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from project.reproduce.record import Erratum, Row
from project.reproduce.theory import ACTIVATIONS

STEP = 1e-5  # step of the finite differences, whose errors are about its square
# Outputs and inputs of a layer: with the first, wrong shapes cannot be multiplied; with the second
# they can, so that the misprint has a value.
NARROWING, SQUARE = (3, 4), (4, 4)

s, s_prime = ACTIVATIONS["sigmoid"]


class Layer(NamedTuple):
    """One layer y_l = s(A_l y_{l-1} + b_l) at one input."""

    weight: Tensor
    """A_l (n_l, n_{l-1})"""
    bias: Tensor
    """b_l (n_l,)"""
    x: Tensor
    """y_{l-1} (n_{l-1},)"""

    @property
    def y(self) -> Tensor:
        """y_l (n_l,)."""
        return s(self.weight @ self.x + self.bias)

    def slopes(self, y: Tensor) -> Tensor:
        """s'(A_l y + b_l) (n_l,), where y should be y_{l-1}."""
        return s_prime(self.weight @ y + self.bias)

    def by_bias(self) -> Tensor:
        """dy_l/db_l (n_l, n_l), by finite differences."""
        return finite_differences(lambda b: s(self.weight @ self.x + b), self.bias)

    def by_input(self) -> Tensor:
        """dy_l/dy_{l-1} (n_l, n_{l-1}), by finite differences."""
        return finite_differences(lambda y: s(self.weight @ y + self.bias), self.x)


def draw(shape: tuple[int, int], seed: int) -> Layer:
    """Returns a random layer in float64; the shape is (outputs, inputs)."""
    generator = torch.Generator().manual_seed(seed)
    outputs, inputs = shape
    sizes = ((outputs, inputs), (outputs,), (inputs,))
    return Layer(*(torch.randn(n, generator=generator, dtype=torch.float64) for n in sizes))


def finite_differences(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Returns the derivative of y = function(x) by x, (len(y), len(x))."""
    steps = STEP * torch.eye(len(x), dtype=x.dtype)
    columns = [(function(x + step) - function(x - step)) / (2 * STEP) for step in steps]
    return torch.stack(columns, 1)


def multiplies(weight: Tensor, y: Tensor) -> bool:
    """Whether the shapes allow the product of weight and y."""
    try:
        weight @ y
    except RuntimeError:
        return False
    return True


def errata(seed: int) -> tuple[Erratum, ...]:
    """Returns the errata of part (a), in the document's order."""
    square = draw(SQUARE, seed)
    misfit = _misfit(draw(NARROWING, seed))
    return (
        _missing_d(square),
        _by_bias(square, misfit),
        _by_input(square, misfit),
        last_row(square),
    )


def _missing_d(layer: Layer) -> Erratum:
    row = layer.weight[:1]
    by_input = finite_differences(lambda y: row @ y + layer.bias[:1], layer.x)
    return Erratum(
        "between dy_L/dy_{L-1} and A_L, and in (b)(i) again, a denominator without its d",
        "the d belongs to both: dy_L/dy_{L-1} = A_L",
        f"finite differences of y_L by y_{{L-1}} are A_L up to {_off(by_input, row)}; y_L divided "
        f"by the {len(layer.x)} numbers of y_{{L-1}} is no derivative",
    )


def _misfit(layer: Layer) -> str:
    outputs, inputs = layer.weight.shape
    fits = "a product" if multiplies(layer.weight, layer.y) else "no product"
    return f"from {inputs} to {outputs} units A_l is {outputs} x {inputs} and has {fits} with y_l"


def _by_bias(layer: Layer, misfit: str) -> Erratum:
    printed, right = (torch.diag(layer.slopes(y)) for y in (layer.y, layer.x))
    return Erratum(
        "(a) dy_l/db_l = diag(s'(A_l y_l + b_l))",
        "diag(s'(A_l y_{l-1} + b_l))",
        _against(layer.by_bias(), printed, right, misfit),
    )


def _by_input(layer: Layer, misfit: str) -> Erratum:
    printed, right = (torch.diag(layer.slopes(y)) @ layer.weight for y in (layer.y, layer.x))
    return Erratum(
        "(a) dy_l/dy_{l-1} = diag(s'(A_l y_l + b_l)) A_l",
        "diag(s'(A_l y_{l-1} + b_l)) A_l",
        _against(layer.by_input(), printed, right, misfit),
    )


def last_row(layer: Layer) -> Erratum:
    """Compares the last row of dy_l/dy_{l-1} with the first unit's slope and with its own."""
    slopes = layer.slopes(layer.x)
    printed, right = (slope * layer.weight[-1] for slope in (slopes[0], slopes[-1]))
    return Erratum(
        "(a) last row of the matrix: s'(z_l^(1)) A_l^(n_l, j)",
        "s'(z_l^(n_l)) A_l^(n_l, j)",
        _against(layer.by_input()[-1], printed, right),
    )


def contradiction(seed: int) -> Row:
    """Compares part (b) with y_{l-1}, as printed, and with the y_l of part (a)."""
    layer, (above, _, _) = draw(SQUARE, seed), draw((1, SQUARE[0]), seed + 1)
    found = finite_differences(
        lambda a: above @ s(a.view_as(layer.weight) @ layer.x + layer.bias), layer.weight.flatten()
    ).view_as(layer.weight)
    with_output, as_printed = (
        torch.diag(layer.slopes(y)) @ above.T @ layer.x[None] for y in (layer.y, layer.x)
    )
    return Row(
        "(b) has y_{l-1} where (a) has y_l",
        "both",
        f"they contradict each other, and (b) is right: it is off finite differences by "
        f"{_off(found, as_printed)}, with the y_l of (a) by {_off(found, with_output)}",
    )


def _against(found: Tensor, printed: Tensor, right: Tensor, misfit: str = "") -> str:
    before = f"{misfit}; where it has, " if misfit else ""
    return (
        f"{before}the printed one is off finite differences by {_off(found, printed)}, the right "
        f"one by {_off(found, right)}"
    )


def _off(found: Tensor, formula: Tensor) -> str:
    return f"{(found - formula).abs().max().item():.1g}"
