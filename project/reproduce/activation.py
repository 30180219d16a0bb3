"""Problem 4: a non-decreasing activation commutes with max pooling; average pooling is stricter."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from project.reproduce import drawing, windows
from project.reproduce.record import Outcome, Row, Task, Verdict

# Every elementwise activation of torch.nn, with its default arguments; Threshold has none.
NON_DECREASING: tuple[nn.Module, ...] = (
    nn.CELU(),
    nn.ELU(),
    nn.Hardshrink(),
    nn.Hardsigmoid(),
    nn.Hardtanh(),
    nn.LeakyReLU(),
    nn.LogSigmoid(),
    nn.PReLU(),
    nn.RReLU().eval(),  # in training its slope is drawn anew for each element
    nn.ReLU(),
    nn.ReLU6(),
    nn.SELU(),
    nn.Sigmoid(),
    nn.Softplus(),
    nn.Softshrink(),
    nn.Softsign(),
    nn.Tanh(),
    nn.Tanhshrink(),
    nn.Threshold(0.1, -0.2),
)
NOT_MONOTONE: tuple[nn.Module, ...] = (nn.GELU(), nn.Hardswish(), nn.Mish(), nn.SiLU())
# These mix the elements of their input, so the question does not arise.
NOT_ELEMENTWISE = ("GLU", "MultiheadAttention", "Softmax", "Softmax2d", "Softmin", "LogSoftmax")

ROUNDING = 1e-15


def run(task: Task) -> Outcome:
    """Swaps pooling and activation on random maps, for every activation."""
    generator = torch.Generator().manual_seed(task.seed)
    x = 3 * torch.randn(64, 4, 28, 28, generator=generator, dtype=torch.float64)
    monotone = max(swap_error(s, x, "max") for s in NON_DECREASING)
    others = {s: swap_error(s, x, "max") for s in NOT_MONOTONE}
    average = {name_of(s): swap_error(s, x, "average") for s in NON_DECREASING}
    figure = drawing.save(
        _draw(),
        task.folder / "activation.png",
        "Where the activations that are not monotone fall: shaded for GELU. Of two values there, "
        "max pooling keeps the right one, whose activation is the smaller.",
    )
    holds = monotone <= ROUNDING and min(others.values()) > 0.01
    return Outcome(
        Verdict.CORRECTED if holds else Verdict.NOT_REPRODUCIBLE,
        "The claim holds, and so does its proof for a finite set: if s does not decrease, the "
        "largest of some values is also the one with the largest s(value). The windows and the "
        "closing chain are misprinted. The condition is needed: a function that falls somewhere "
        "fails for windows whose values all lie where it falls, left of its lowest point. With "
        "average pooling not even the non-decreasing ones commute, unless s is linear on the "
        "window.",
        (
            Row(
                f"max pooling, the {len(NON_DECREASING)} non-decreasing activations of torch.nn",
                "commutes",
                f"commutes: largest difference {monotone:.1g} on {x.numel():,} random values",
            ),
            *(
                Row(
                    f"max pooling, {name_of(s)}",
                    "",
                    f"differs by up to {error:.2f}: it falls left of {lowest_point(s):.3f}",
                )
                for s, error in others.items()
            ),
            Row("average pooling, tanh", "", f"differs by up to {average['Tanh']:.2f}"),
            Row(
                "average pooling, all the non-decreasing ones",
                "",
                f"none commutes: each differs somewhere by {min(average.values()):.2f} or more",
            ),
        ),
        (figure,),
        windows.errata(torch.tanh, task.seed),
    )


def name_of(activation: nn.Module) -> str:
    """Returns the name of an activation, such as "GELU"."""
    return type(activation).__name__


@torch.no_grad()
def swap_error(activation: nn.Module, x: Tensor, pooling: str) -> float:
    """The largest |s(pool(x)) - pool(s(x))| over 2x2 windows; pooling is "max" or "average"."""
    pool = F.max_pool2d if pooling == "max" else F.avg_pool2d
    activation = activation.to(x.dtype)
    return float((activation(pool(x, 2)) - pool(activation(x), 2)).abs().max())


def lowest_point(activation: nn.Module) -> float:
    """Returns where the activation is smallest; it falls left of it and rises right of it."""
    z = torch.linspace(-5, 5, 1_000_001, dtype=torch.float64)
    return float(z[activation(z).argmin()])


def _draw() -> Figure:
    figure = Figure(figsize=(6.4, 2.8))
    axes = figure.subplots()
    z = torch.linspace(-4, 1, 501)
    for activation, colour in zip(NOT_MONOTONE, ("C0", "C1", "C2", "C3"), strict=True):
        axes.plot(z, activation(z), label=name_of(activation), color=colour)
    axes.axvspan(-4, lowest_point(nn.GELU()), color=drawing.GREY, alpha=0.15, linewidth=0)
    axes.set(xlim=(-4, 1), ylim=(-0.45, 0.6), xlabel="z", ylabel="s(z)")
    axes.legend(frameon=False)
    drawing.plain_axes(axes)
    return figure
