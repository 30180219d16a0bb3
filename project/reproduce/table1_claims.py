"""The document's conclusions from Table 1: D_KL is more accurate, more stable, much faster."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from project.bench.loops import seconds_per_iteration
from project.bench.measure import CPU
from project.bench.published import PUBLISHED_LOSSES, linear_iterations
from project.reproduce.record import Erratum, Row
from project.reproduce.table1_printed import RUNS, TABLE

Accuracies = np.ndarray[Any, np.dtype[np.float64]]
Flags = np.ndarray[Any, np.dtype[np.bool_]]
Loss = Callable[[Tensor, Tensor], Tensor]

# Number and iterations of the slices, timed in turns: of the published loops, and of the losses.
SLICES, SLICE = 7, 100
LOSS_SLICES, LOSS_SLICE = 20, 50


def accuracy(logistic: Accuracies, mse: Accuracies, collapsed: Flags) -> Row:
    """Whether D_KL is more accurate.

    Args:
        logistic: (R,) accuracies, 0 to 1.
        mse: (R,) accuracies with the same seeds.
        collapsed: (R,) which of the runs of `mse` collapsed.
    """
    ours, theirs, learnt = logistic.mean(), mse.mean(), mse[~collapsed]
    printed = (TABLE["logistic"].accuracy, TABLE["mse"].accuracy)
    rest = ""
    if len(learnt):
        rest = f", by {100 * (ours - learnt.mean()):.2f} without its collapsed runs"
    return Row(
        "D_KL is slightly more accurate",
        f"{printed[0]:.2f} to {printed[1]:.2f} %, by {printed[0] - printed[1]:.2f} points",
        f"{_verdict(ours > theirs)}: {100 * ours:.2f} to {100 * theirs:.2f} %, by "
        f"{100 * (ours - theirs):.2f} points{rest}"
        + _fives(logistic, mse, lambda a, b: a.mean(1) > b.mean(1)),
    )


def stability(logistic: Accuracies, mse: Accuracies, collapsed: Flags) -> Row:
    """Whether D_KL is more stable; the arguments are those of `accuracy`."""
    ours, theirs, learnt = logistic.std(), mse.std(), mse[~collapsed]
    rest = f", {100 * learnt.std():.2f} without its collapsed runs" if len(learnt) else ""
    return Row(
        "D_KL is more stable: its deviation is smaller",
        f"{TABLE['logistic'].deviation:.3f} to {TABLE['mse'].deviation:.3f}",
        f"{_verdict(ours < theirs)}: {100 * ours:.2f} to {100 * theirs:.2f}{rest}"
        + _fives(logistic, mse, lambda a, b: a.std(1) < b.std(1)),
    )


def _verdict(holds: bool) -> str:
    return "holds" if holds else "does not hold"


def _fives(
    logistic: Accuracies, mse: Accuracies, holds: Callable[[Accuracies, Accuracies], Flags]
) -> str:
    """Describes in how many tables of five runs, such as the document's, a claim would hold."""
    tables = len(logistic) // RUNS
    if tables < 2:
        return ""
    five = (values[: tables * RUNS].reshape(tables, RUNS) for values in (logistic, mse))
    return f"; seen in {int(holds(*five).sum())} of {tables} tables of five runs"


def time_ratio(compiled: float, device: str, root: Path) -> Row:
    """Whether D_KL is faster.

    Args:
        compiled: seconds of a run of MSE over those of D_KL, in the compiled loop.
        device: where that loop ran.
        root: folder that holds MNIST/raw.
    """
    seconds = [statistics.fmean(column.seconds) for column in TABLE.values()]
    eager = published_ratio(root)
    return Row(
        "D_KL is much faster",
        f"{seconds[0]:g} to {seconds[1]:g} s, {seconds[1] / seconds[0]:.2f} times",
        f"{_verdict(eager > 1)} for the published loop: {eager:.2f} times on {CPU}; "
        f"{compiled:.2f} times as one compiled loop on {device}",
    )


def published_ratio(root: Path) -> float:
    """Returns the time per iteration of MSE over D_KL, for the published loops in turns."""
    loops = {name: linear_iterations(name, root, CPU) for name in TABLE}
    slices: dict[str, list[float]] = {name: [] for name in TABLE}
    for _ in range(SLICES):
        for name, loop in loops.items():
            slices[name].append(seconds_per_iteration(loop, SLICE))
    return statistics.median(slices["mse"]) / statistics.median(slices["logistic"])


def four_terms(
    z: Tensor, y: Tensor, square: Callable[[Tensor], Tensor], s: Callable[[Tensor], Tensor]
) -> Tensor:
    """Returns the squared error as the document writes it, in four terms."""
    minus = square(1 - s(-z)) + square(s(z))
    plus = square(s(-z)) + square(1 - s(z))
    return ((1 - y) / 2 * minus + (1 + y) / 2 * plus).sum()


def _same(x: Tensor) -> Tensor:
    return x


# The last three are not for training: they show the cost of the parts of a loss.
LOSSES: dict[str, Loss] = {
    "D_KL": PUBLISHED_LOSSES["logistic"],
    "MSE": partial(four_terms, square=lambda x: x**2, s=torch.sigmoid),
    "without squares": partial(four_terms, square=_same, s=torch.sigmoid),
    "without sigmoids": partial(four_terms, square=lambda x: x**2, s=_same),
    "with neither": partial(four_terms, square=_same, s=_same),
}


def operations(loss: Loss) -> int:
    """Returns the number of operations of which torch takes the gradient."""
    z = torch.zeros(1, requires_grad=True)
    waiting, seen = [loss(z, torch.ones(1)).grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [earlier for earlier, _ in node.next_functions]
    # One of them is z itself.
    return len(seen) - 1


def loss_seconds() -> dict[str, float]:
    """Returns CPU seconds of each loss with its gradient: the fastest slice, timed in turns."""
    y, seconds = torch.ones(1), dict.fromkeys(LOSSES, float("inf"))
    for _ in range(LOSS_SLICES):
        for name, loss in LOSSES.items():
            start = time.thread_time()
            for _ in range(LOSS_SLICE):
                z = torch.zeros(1, requires_grad=True)
                torch.autograd.backward(loss(z, y))
            seconds[name] = min(seconds[name], (time.thread_time() - start) / LOSS_SLICE)
    return seconds


def squares_are_slow() -> Erratum:
    """Reports the cost of the loss and its gradient, with and without the squares."""
    cost = {name: f"{1e6 * seconds:.0f} us" for name, seconds in loss_seconds().items()}
    counts = {name: operations(loss) for name, loss in LOSSES.items()}
    return Erratum(
        "D_KL is much faster, because squares are slow in Python",
        "most of the difference remains without the squares: it is the number of small operations, "
        f"{counts['MSE']} for MSE and {counts['D_KL']} for D_KL",
        f"loss and gradient in eager torch: D_KL {cost['D_KL']}, MSE {cost['MSE']}; without its "
        f"four squares {cost['without squares']}, without its four sigmoids "
        f"{cost['without sigmoids']}, with neither {cost['with neither']}",
    )


def missing_square(printed: float, right: float) -> Erratum:
    """Reports what the appendix's code minimises, and whether Table 1 was made with it.

    Args:
        printed: share of the runs that collapse with that loss.
        right: the same with the square.
    """
    z = torch.zeros(1)
    minus = (1 - torch.sigmoid(-z)) ** 2
    values = [(minus + torch.sigmoid(z) ** power).item() for power in (1, 2)]
    chances = [f"{(1 - share) ** RUNS:.0%}" for share in (printed, right)]
    return Erratum(
        "MSE in the appendix's code, for the label -1: (1 - s(-z))^2 + s(z)",
        "(1 - s(-z))^2 + s(z)^2",
        f"at z = 0: {values[0]:g}, not {values[1]:g}. {printed:.0%} of the runs collapse as "
        f"printed, {right:.0%} with the square; five that do not have chances of {chances[0]} and "
        f"{chances[1]}, so that Table 1 does not tell which of the two it was made with",
    )
