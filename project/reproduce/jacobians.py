"""Problem 6: the derivatives of a perceptron, against autograd."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.func import jacrev

from project.reproduce import theory
from project.reproduce.record import Outcome, Row, Task, Verdict

DEPTHS = range(1, 7)
NETS = 4  # of each depth, for each activation
WIDEST = 8
TOLERANCE = 1e-12

# As theory.py has them.
FORMULAS = {
    "dy_l/dy_{l-1}": "diag(s'(z_l)) A_l",
    "dy_l/db_l": "diag(s'(z_l))",
    "dy_L/db_l": "dy_L/dy_{L-1} ... dy_{l+1}/dy_l dy_l/db_l",
    "dy_L/dA_l": "each row of dy_L/db_l times y_{l-1}^T",
}
# What the document prints and what it should.
MISPRINTS = (
    Row("where layer l takes s'", "A_l y_l + b_l", "A_l y_{l-1} + b_l = z_l"),
    Row("last row of the matrix with s'", "without s'(z^(n_l))", "row i carries s'(z^(i)), all do"),
    Row("last factor of the derivative by A_L", "y_{L-1}", "y_{L-1}^T"),
)


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
    worst = max(errors.values())
    nets = len(DEPTHS) * len(theory.ACTIVATIONS) * NETS
    return Outcome(
        Verdict.CORRECTED if worst < TOLERANCE else Verdict.NOT_REPRODUCIBLE,
        "Layer l is y_l = s(z_l) with z_l = A_l y_{l-1} + b_l. The document evaluates s' with the "
        "layer's own output y_l where its input y_{l-1} belongs, leaves s'(z^(n_l)) out of the "
        "last row of a matrix, and lacks a transposition of y_{L-1}. The formulas below equal "
        f"autograd on {nets} random nets in float64: {DEPTHS[0]} to {DEPTHS[-1]} layers, widths 1 "
        f"to {WIDEST}, with {', '.join(theory.ACTIVATIONS)}.",
        (
            *MISPRINTS,
            *(
                Row(name, "", f"{right}: largest error {errors[name]:.1e}")
                for name, right in FORMULAS.items()
            ),
        ),
    )


def compare(depth: int, activation: str, generator: torch.Generator) -> dict[str, float]:
    """The largest error of each formula over all layers of one random net."""
    widths = torch.randint(1, WIDEST + 1, (depth + 1,), generator=generator).tolist()
    weights = [_draw(n, m, generator) / m**0.5 for m, n in itertools.pairwise(widths)]
    biases = [_draw(1, n, generator)[0] for n in widths[1:]]
    x = _draw(1, widths[0], generator)[0]
    net = theory.perceptron(weights, biases, x, activation)
    errors = dict.fromkeys(FORMULAS, 0.0)
    for layer in range(1, depth + 1):
        expected = by_autograd(weights, biases, net.y, layer, activation)
        ours = {
            "dy_l/dy_{l-1}": theory.layer_by_input(net, layer),
            "dy_l/db_l": theory.layer_by_bias(net, layer),
            "dy_L/dA_l": theory.output_by_weight(net, layer),
            "dy_L/db_l": theory.output_by_bias(net, layer),
        }
        for name in FORMULAS:
            errors[name] = max(errors[name], (ours[name] - expected[name]).abs().max().item())
    return errors


def by_autograd(
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    y: Sequence[Tensor],
    layer: int,
    activation: str,
) -> dict[str, Tensor]:
    """The same derivatives as torch finds them."""
    i = layer - 1

    def of_layer(y: Tensor, b: Tensor) -> Tensor:
        return theory.perceptron(weights[i:layer], [b], y, activation).output

    def of_output(a: Tensor, b: Tensor) -> Tensor:
        all_weights = [*weights[:i], a, *weights[layer:]]
        all_biases = [*biases[:i], b, *biases[layer:]]
        return theory.perceptron(all_weights, all_biases, y[0], activation).output

    by_input, by_own_bias = jacrev(of_layer, argnums=(0, 1))(y[i], biases[i])
    by_weight, by_bias = jacrev(of_output, argnums=(0, 1))(weights[i], biases[i])
    return {
        "dy_l/dy_{l-1}": by_input,
        "dy_l/db_l": by_own_bias,
        "dy_L/dA_l": by_weight,
        "dy_L/db_l": by_bias,
    }


def _draw(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    return torch.randn(rows, columns, generator=generator, dtype=torch.float64)
