"""Problem 6: the derivatives of the document's perceptron, against autograd."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.func import jacrev

from project.reproduce import jacobian_errata, theory
from project.reproduce.record import Outcome, Row, Task, Verdict

DEPTHS = range(1, 7)
NETS = 4  # of each depth, for each activation
WIDEST = 8
TOLERANCE = 1e-12

# The printed formula, and the right one if that is another.
FORMULAS = {
    "dy_L/db_L": ("1", ""),
    "dy_L/dy_{L-1}": ("A_L", ""),
    "dy_l/db_l": ("diag(s'(A_l y_l + b_l))", "diag(s'(A_l y_{l-1} + b_l))"),
    "dy_l/dy_{l-1}": ("diag(s'(A_l y_l + b_l)) A_l", "diag(s'(A_l y_{l-1} + b_l)) A_l"),
    "dy_L/dA_L": ("y_{L-1}^T", ""),
    "dy_L/dA_l": ("diag(s'(A_l y_{l-1} + b_l)) (dy_L/dy_l)^T y_{l-1}^T", ""),
}
# Derivatives of a layer by its input and its bias, and of y_L by its weight.
OF_A_LAYER = ("dy_l/dy_{l-1}", "dy_l/db_l", "dy_L/dA_l")
OF_THE_LAST = ("dy_L/dy_{L-1}", "dy_L/db_L", "dy_L/dA_L")


def run(task: Task) -> Outcome:
    """Compares each formula with autograd on random nets of every depth and activation."""
    generator = torch.Generator().manual_seed(task.seed)
    errors = dict.fromkeys(FORMULAS, 0.0)
    for depth in DEPTHS:
        for activation in theory.ACTIVATIONS:
            for _ in range(NETS):
                for name, error in compare(depth, activation, generator).items():
                    errors[name] = max(errors[name], error)
        task.progress(depth / len(DEPTHS))
    nets = len(DEPTHS) * len(theory.ACTIVATIONS) * NETS
    return Outcome(
        Verdict.CORRECTED if max(errors.values()) < TOLERANCE else Verdict.NOT_REPRODUCIBLE,
        "Layer l is y_l = s(A_l y_{l-1} + b_l), the last one y_L = A_L y_{L-1} + b_L, a number. "
        "What (b) finds is right as printed, transposed where it must be. Part (a) has y_l, the "
        "layer's own output, where its input y_{l-1} belongs, which (b) contradicts, and a wrong "
        f"index in the last row of a matrix. The right formulas equal autograd on {nets} random "
        f"nets in float64: {DEPTHS[0]} to {DEPTHS[-1]} layers, widths 1 to {WIDEST}, with "
        f"{', '.join(theory.ACTIVATIONS)}.",
        (
            *(
                Row(
                    f"{'(b)' if '/dA' in name else '(a)'} {name}",
                    printed,
                    f"{right or 'the same'}: largest error {errors[name]:.1g}",
                )
                for name, (printed, right) in FORMULAS.items()
            ),
            jacobian_errata.contradiction(task.seed),
        ),
        errata=jacobian_errata.errata(task.seed),
    )


def compare(depth: int, activation: str, generator: torch.Generator) -> dict[str, float]:
    """Returns the largest error of each formula over all layers of one random net."""
    widths = [*torch.randint(1, WIDEST + 1, (depth,), generator=generator).tolist(), 1]
    weights = [_draw(n, m, generator) / m**0.5 for m, n in itertools.pairwise(widths)]
    biases = [_draw(1, n, generator)[0] for n in widths[1:]]
    x = _draw(1, widths[0], generator)[0]
    net = theory.perceptron(weights, biases, x, activation, last="identity")
    errors = dict.fromkeys(FORMULAS, 0.0)
    for layer in range(1, depth + 1):
        names = OF_THE_LAST if layer == depth else OF_A_LAYER
        expected = by_autograd(weights, biases, net.y, layer, activation)
        for name, ours, torchs in zip(names, closed_forms(net, layer), expected, strict=True):
            errors[name] = max(errors[name], (ours - torchs).abs().max().item())
    return errors


def closed_forms(net: theory.Perceptron, layer: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the derivatives of y_l by y_{l-1} and by b_l, and of y_L by A_l."""
    if layer == len(net.weights):
        return net.weights[-1], torch.ones_like(net.output)[None], net.y[-2][None]
    by_weight = theory.output_by_weight(net, layer)[0]
    return theory.layer_by_input(net, layer), theory.layer_by_bias(net, layer), by_weight


def by_autograd(
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    y: Sequence[Tensor],
    layer: int,
    activation: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the same derivatives by autograd."""
    i = layer - 1
    own = "identity" if layer == len(weights) else activation

    def of_layer(y: Tensor, b: Tensor) -> Tensor:
        return theory.perceptron(weights[i:layer], [b], y, own).output

    def of_output(a: Tensor) -> Tensor:
        all_weights = [*weights[:i], a, *weights[layer:]]
        return theory.perceptron(all_weights, biases, y[0], activation, last="identity").output

    by_input, by_bias = jacrev(of_layer, argnums=(0, 1))(y[i], biases[i])
    return by_input, by_bias, jacrev(of_output)(weights[i])[0]


def _draw(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    return torch.randn(rows, columns, generator=generator, dtype=torch.float64)
