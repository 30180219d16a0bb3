"""Table 1 as the document prints it, and whether its averages and deviations follow from it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

from project.reproduce.record import Row


class Column(NamedTuple):
    """One loss: five runs and the figures printed below them. Seconds include the test."""

    title: str
    accuracies: tuple[float, ...]
    """In percent."""
    seconds: tuple[float, ...]
    averages: tuple[str, str]
    """The printed averages of accuracies and of seconds; the deviations likewise."""
    deviations: tuple[str, str]

    @property
    def accuracy(self) -> float:
        """The average of the runs, in percent."""
        return statistics.fmean(self.accuracies)

    @property
    def deviation(self) -> float:
        """The population deviation of the runs' accuracies, in points."""
        return statistics.pstdev(self.accuracies)


TABLE = {
    "logistic": Column(
        "D_KL",
        (92.16, 96.63, 95.98, 96.08, 96.84),
        (2.8, 2.8, 3.0, 2.8, 2.8),
        ("95.538", "2.84"),
        ("1.71974882", "0.08"),
    ),
    "mse": Column(
        "MSE",
        (95.58, 95.38, 95.28, 94.98, 88.15),
        (6.4, 6.4, 6.3, 6.5, 6.4),
        ("93.874", "6.4"),
        ("2.86854388", "0.06324555"),
    ),
}
RUNS = 5


def rows(ours: Sequence[str]) -> list[Row]:
    """Returns the table, row by row.

    Args:
        ours: our results, to stand beside the published runs.
    """
    beside = [*ours, *[""] * RUNS][:RUNS]
    runs = [Row(f"Table 1, run {i + 1}", _run(i), text) for i, text in enumerate(beside)]
    return [
        *runs,
        _summary("their averages", [c.averages for c in TABLE.values()], statistics.fmean),
        _summary(
            "their population deviations",
            [c.deviations for c in TABLE.values()],
            statistics.pstdev,
        ),
    ]


def _run(i: int) -> str:
    cells = (f"{c.title} {c.accuracies[i]:.2f} % in {c.seconds[i]:.1f} s" for c in TABLE.values())
    return ", ".join(cells)


def follows(printed: str, value: float) -> bool:
    """Whether a printed figure is the value, rounded to as many places as the figure has."""
    places = len(printed.partition(".")[2])
    return f"{value:.{places}f}" == printed


def _summary(
    claim: str,
    printed: Sequence[tuple[str, str]],
    function: Callable[[Sequence[float]], float],
) -> Row:
    """Returns the printed averages or deviations, and whether `function` reproduces them."""
    texts, right = [], True
    for column, (accuracy, seconds) in zip(TABLE.values(), printed, strict=True):
        texts.append(f"{column.title} {accuracy} %, {seconds} s")
        right &= follows(accuracy, function(column.accuracies))
        right &= follows(seconds, function(column.seconds))
    follow = "follow from the rows" if right else "do not follow from the rows"
    return Row(claim, "; ".join(texts), follow)
