"""Problem 5, Table 1: logistic loss against squared error, one image at a time."""

from __future__ import annotations

import csv
import io
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure as Drawing

from callbacks.files import write_text
from project.bench.measure import interleaved
from project.reproduce import drawing, table1_claims, table1_printed
from project.reproduce.descents import Descent, Experiment, run_shared
from project.reproduce.record import Outcome, Row, Task, Verdict
from project.reproduce.table1_printed import RUNS, TABLE, Column

COLLAPSED = 0.6  # a run below this accuracy gives nearly all images the same answer


NAMES = ("logistic", "mse", "mse-as-printed", "logistic-tuned", "mse-tuned")


class Series(NamedTuple):
    """All runs of one configuration."""

    descents: list[Descent]
    total: int
    seconds: list[float]
    """Seconds of the first runs, one at a time."""
    device: str
    """The device on which they ran."""

    @property
    def accuracies(self) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """(R,) test accuracies, 0 to 1."""
        return np.array([descent.correct for descent in self.descents]) / self.total

    @property
    def collapsed(self) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """(R,) whether each run collapsed."""
        return self.accuracies < COLLAPSED


def run_own_part(task: Task) -> dict[str, Series]:
    """Runs every configuration with every seed; several ranks share the runs."""
    seeds = range(task.seed, task.seed + task.runs)
    found = {}
    for done, name in enumerate(NAMES):
        experiment = Experiment(name, task.root)
        descents = run_shared(experiment, seeds, partial(_progress, task, done))
        seconds = [_seconds(experiment, seed) for seed in seeds[:RUNS]]
        found[name] = Series(descents, experiment.total, seconds, experiment.device.type)
    return found


def _progress(task: Task, done: int, fraction: float) -> None:
    task.progress((done + fraction) / len(NAMES))


def run(task: Task) -> Outcome:
    """Compares the runs of `run_own_part` with the document's table."""
    found = run_own_part(task)
    write_text(task.folder / "table1.csv", _csv(found))
    write_text(task.folder / "table1.md", _markdown(found))
    return Outcome(
        Verdict.NOT_REPRODUCIBLE,
        _text(found),
        (*table1_printed.rows(_first_runs(found)), *_rows(found), *_claims(found, task)),
        (
            drawing.save(
                _histogram(found),
                task.folder / "table1.png",
                f"Test accuracy of {_counted(task.runs)} of each. "
                "Dashed: the document's mean of five.",
            ),
            drawing.save(
                _collapse(found["mse"]),
                task.folder / "table1-collapse.png",
                "Squared error. Left: the mean margin that a run starts with says nothing about "
                "how it ends. Right: a run may fall into the collapse at any iteration.",
            ),
        ),
        (
            table1_claims.missing_square(
                *(float(found[name].collapsed.mean()) for name in ("mse-as-printed", "mse"))
            ),
            table1_claims.squares_are_slow(),
        ),
    )


def _seconds(experiment: Experiment, seed: int) -> float:
    start = time.perf_counter()
    experiment.run([seed])
    return time.perf_counter() - start


def _percent(mean: float, deviation: float) -> str:
    return f"{100 * mean:.2f} +- {100 * deviation:.2f} %"


def _first_runs(found: dict[str, Series]) -> list[str]:
    """Returns a text for each run that is timed by itself, with the document's two losses."""
    ours = {TABLE[name].title: found[name] for name in TABLE}
    return [
        f"seed {found['mse'].descents[i].seed}: "
        + ", ".join(
            f"{title} {100 * series.accuracies[i]:.2f} % in {series.seconds[i]:.3f} s"
            for title, series in ours.items()
        )
        for i in range(len(found["mse"].seconds))
    ]


def _counted(runs: int) -> str:
    return "1 run" if runs == 1 else f"{runs} runs"


def _rows(found: dict[str, Series]) -> list[Row]:
    rows = []
    for name, series in found.items():
        published = TABLE.get(name)
        accuracies, learnt = series.accuracies, series.accuracies[~series.collapsed]
        rows.append(
            Row(
                f"{name}: accuracy of {_counted(len(accuracies))}, mean and population deviation",
                f"{_printed(published)} of {RUNS}" if published else "",
                f"{_percent(accuracies.mean(), accuracies.std())}, "
                f"median {100 * np.median(accuracies):.2f} %",
            )
        )
        if series.collapsed.any():
            rows.append(
                Row(
                    f"{name}: collapsed, accuracy under {COLLAPSED:.0%}",
                    f"none of {RUNS}" if published else "",
                    f"{series.collapsed.mean():.1%} of the runs"
                    + (
                        f"; the rest {_percent(learnt.mean(), learnt.std())}" if len(learnt) else ""
                    ),
                )
            )
        rows.append(
            Row(
                f"{name}: seconds of a run, training and test",
                f"{statistics.fmean(published.seconds):g}" if published else "",
                f"{statistics.median(series.seconds):.3f} on {series.device}, one compiled loop, "
                "set-up included",
            )
        )
    return rows


def _printed(column: Column) -> str:
    return f"{column.accuracy:.2f} +- {column.deviation:.2f} %"


def _claims(found: dict[str, Series], task: Task) -> tuple[Row, Row, Row]:
    """Returns the conclusions that the document draws from the table."""
    compared = (found["logistic"].accuracies, found["mse"].accuracies, found["mse"].collapsed)
    return (
        table1_claims.accuracy(*compared),
        table1_claims.stability(*compared),
        table1_claims.time_ratio(*_compiled_ratio(task), task.root),
    )


def _compiled_ratio(task: Task) -> tuple[float, str]:
    """Returns the time of squared error over logistic, run in turns, and the device."""
    pair = {name: Experiment(name, task.root) for name in ("logistic", "mse")}
    one_run = {name: partial(experiment.run, [task.seed]) for name, experiment in pair.items()}
    times = interleaved(one_run, repeats=5)
    return times["mse"].median / times["logistic"].median, pair["mse"].device.type


def _text(found: dict[str, Series]) -> str:
    mse = found["mse"]
    none = (1 - mse.collapsed.mean()) ** 5
    ends = [d.last_lesson for d, lost in zip(mse.descents, mse.collapsed, strict=True) if lost]
    story = (
        f"Half of them had seen their last useful image after {statistics.median(ends):,.0f} "
        f"iterations, the last one after {max(ends):,}. "
        if ends
        else ""
    )
    return (
        "The logistic average is reproduced; the one for squared error is a fortunate draw. "
        f"{mse.collapsed.mean():.0%} of its runs collapse: every image gets the same answer. Five "
        f"runs without a collapse, as the document had, come up with a chance of {none:.0%}. "
        "The slope of the squared error, 4 s^2 (1 - s) in the sigmoid s of the margin, vanishes "
        "where the sigmoid saturates, also at images that are wrong. On raw pixels one update "
        "moves the margin by its slope times the learning rate times |x|^2, by hundreds; one such "
        "jump can carry all images beyond saturation on the same side, and nothing leads back. "
        f"{story}The margins at the start do not decide it. Scaled pixels and a falling "
        "learning rate (the tuned configurations) end it. D_KL is the logistic loss. That squared "
        "error takes longer in eager Python is for the number of its small operations, of which "
        "the squares are some: in the compiled loop the two take about the same time. With raw "
        "pixels the runs are chaotic: another order of the same sum, as another processor may "
        "take, gives other digits for a seed, and much the same averages."
    )


def _csv(found: dict[str, Series]) -> str:
    """Returns a line of CSV per run, without seconds: the same for any number of ranks."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["loss", "seed", "correct", "total", "accuracy", "initial_margin", "collapsed"])
    for name, series in found.items():
        for run, accuracy in zip(series.descents, series.accuracies, strict=True):
            values = (run.seed, run.correct, series.total, f"{accuracy:.6f}", f"{run.margin:.4f}")
            writer.writerow([name, *values, int(accuracy < COLLAPSED)])
    return file.getvalue()


def _markdown(found: dict[str, Series]) -> str:
    """Returns our table with the document's below; the first runs singly, as it has them."""
    lines = ["| run | " + " | ".join(f"{name} | s" for name in found) + " |"]
    lines.append("| --- |" + " --- | --- |" * len(found))
    for i in range(min(RUNS, min(len(series.descents) for series in found.values()))):
        cells = [f"{s.accuracies[i]:.2%} | {s.seconds[i]:.3f}" for s in found.values()]
        lines.append(f"| seed {next(iter(found.values())).descents[i].seed} | {_join(cells)} |")
    everything: dict[str, list[str]] = {
        "mean": [f"{s.accuracies.mean():.2%} | {np.mean(s.seconds):.3f}" for s in found.values()],
        "deviation": [
            f"{s.accuracies.std():.2%} | {np.std(s.seconds):.3f}" for s in found.values()
        ],
        "median": [f"{np.median(s.accuracies):.2%} |" for s in found.values()],
        "collapsed": [f"{s.collapsed.mean():.1%} |" for s in found.values()],
        **{
            f"published run {i + 1}": _published(found, partial(_printed_run, i))
            for i in range(RUNS)
        },
        "published average": _published(found, lambda c: " | ".join(c.averages)),
        "published deviation": _published(found, lambda c: " | ".join(c.deviations)),
    }
    lines += [f"| {label} | {_join(cells)} |" for label, cells in everything.items()]
    runs = len(next(iter(found.values())).descents)
    lines.append(
        f"\nMean, population deviation, median and share of {_counted(runs)}; seconds of the "
        f"first {min(runs, RUNS)}."
    )
    return "\n".join(lines) + "\n"


def _printed_run(i: int, column: Column) -> str:
    return f"{column.accuracies[i]:.2f}% | {column.seconds[i]:.1f}"


def _published(found: dict[str, Series], cells: Callable[[Column], str]) -> list[str]:
    """Returns the document's figures for the configurations that it has."""
    return [cells(TABLE[name]) if name in TABLE else " |" for name in found]


def _join(cells: Sequence[str]) -> str:
    return " | ".join(cells)


def _histogram(found: dict[str, Series]) -> Drawing:
    figure = Drawing(figsize=(7.5, 6.5), layout="constrained")
    panels = figure.subplots(len(found), 1, sharex=True)
    for axes, (name, series) in zip(panels, found.items(), strict=True):
        axes.hist(100 * series.accuracies, bins=np.arange(45, 100.01, 0.5), color=drawing.BLUE)
        if published := TABLE.get(name):
            axes.axvline(published.accuracy, color=drawing.RED, linestyle="--", linewidth=1.2)
        axes.set_title(name, loc="left", fontsize=10)
        axes.set_ylabel("runs")
        drawing.plain_axes(axes)
    panels[-1].set_xlabel("test accuracy, %")
    return figure


def _collapse(series: Series) -> Drawing:
    figure = Drawing(figsize=(8.5, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    margins = np.array([descent.margin for descent in series.descents])
    for chosen, colour, label in (
        (~series.collapsed, drawing.BLUE, "learnt"),
        (series.collapsed, drawing.RED, "collapsed"),
    ):
        left.scatter(
            margins[chosen], 100 * series.accuracies[chosen], s=9, color=colour, label=label
        )
    left.set(xlabel="mean margin before the first iteration", ylabel="test accuracy, %")
    left.legend(frameon=False, loc="center left")
    ends = [
        d.last_lesson for d, lost in zip(series.descents, series.collapsed, strict=True) if lost
    ]
    if ends:
        right.ecdf(ends, color=drawing.RED)
    right.set(xscale="log", xlabel="last iteration that taught anything", ylim=(0, 1.02))
    right.set_ylabel("share of the collapsed runs")
    for axes in (left, right):
        drawing.plain_axes(axes)
    return figure
