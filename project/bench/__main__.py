"""`python -m project.bench`: speed against the published loops, as ratios in one run."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from callbacks.files import write_json
from data import source
from project import processes
from project.bench import drawing, fit, iteration, kernel, race, scaling
from project.bench.measure import machine
from project.drawing import default_style
from project.errors import OneLineParser, UserError, user_errors
from project.output import file_if_named
from project.precision import in_float32
from project.threads import limit_threads

DESCRIPTION = """fit (the default) times project.fit against the published loops and what else one
would write; iteration takes one iteration of LeNet-5 apart, on one CPU thread; kernel times the
fused convolutional blocks against their reference; race trains LeNet-5 until 98.64 and 99 % of the
test images are right, which takes some minutes a seed; scaling runs project.fit on 1, 2 and 4 CPU
ranks. All in turns, on this machine."""

Rows = list[dict[str, Any]]


def main(args: list[str] | None = None) -> None:
    """Runs the program.

    Args:
        args: command line without the program; None takes that of the process.
    """
    parser = OneLineParser(prog="python -m project.bench", description=DESCRIPTION)
    parser.add_argument("question", nargs="?", choices=QUESTIONS, default="fit")
    parser.add_argument("--json", metavar="FILE", help="write all raw values there too")
    parser.add_argument("--png", metavar="FILE", help="fit, race: draw the figure there")
    parser.add_argument("--root", help="folder that holds MNIST/raw (default: MNIST_ROOT)")
    parser.add_argument(
        "--repeats", type=int, default=5, help="slices or seeds of each (default: 5)"
    )
    parser.add_argument(
        "--only", choices=fit.RACES, action="append", help="fit: this one; may be repeated"
    )
    parser.add_argument(
        "--c3",
        choices=["original", "modern"],
        default="original",
        help="iteration, race: which LeNet-5",
    )
    parser.add_argument("--batches", type=int, nargs="+", help="all but fit and race: batch sizes")
    options = parser.parse_args(args)
    if options.repeats < 1:
        parser.error("--repeats must be 1 or more")
    if min(options.batches or [1]) < 1:
        parser.error("--batches must be 1 or more")
    if options.png is not None and options.question not in ("fit", "race"):
        parser.error("--png draws the figure of fit or race")
    with user_errors():
        processes.settle()
        limit_threads()
        if max(processes.ranks() or 1, processes.srun_tasks()) > 1:
            raise UserError("others at work would change the times; start project.bench alone.")
        in_float32()
        file, figure = map(file_if_named, (options.json, options.png))
        rows = QUESTIONS[options.question](options)
        if file:
            record = {"machine": machine(), "rows": rows}
            write_json(file, record)
        if figure:
            with user_errors(Exception), default_style():
                draw = drawing.save_race if options.question == "race" else drawing.save
                draw(rows, figure)
    print(*(f"{key}: {value}" for key, value in machine().items()), sep=", ")


@contextmanager
def _progress(total: int) -> Iterator[Callable[[str], None]]:
    """A bar over `total` measurements; call what it yields with the name of the one that begins."""
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)

        def begin(text: str) -> None:
            bar.update(task, description=text, advance=1)

        yield begin


def _data(options: argparse.Namespace) -> Path:
    root = source.resolve_root(options.root)
    source.ensure(root)
    return root.resolve()


def _fit(options: argparse.Namespace) -> Rows:
    root = _data(options)
    races = {name: fit.contestants(name, root) for name in options.only or fit.RACES}
    rows = []
    with _progress(sum(map(len, races.values())) * (options.repeats + 1)) as progress:
        for name, entries in races.items():
            rows += fit.race(name, entries, options.repeats, progress)
    table = Table(title=f"Training, median of {options.repeats} slices (lowest to highest)")
    for column in ("experiment", "loop", "per iteration", "against published"):
        table.add_column(column)
    for row in rows:
        ours = row["loop"] == fit.OURS
        texts = (row["experiment"], row["loop"], row["text"], f"{row['ratio']:.1f} x")
        table.add_row(*texts, end_section=ours, style="bold" if ours else None)
    Console().print(table)
    return rows


def _iteration(options: argparse.Namespace) -> Rows:
    batches = options.batches or iteration.BATCHES
    with _progress(2 * len(batches)) as progress:
        rows = iteration.run(options.c3, _data(options), batches, options.repeats, progress)
    title = f"One iteration of lenet5-{options.c3} on one thread, the middle one of"
    table = Table(title=f"{title} {options.repeats} runs")
    for column in ("batch", "piece", "time", "share", "GFLOPS", "of peak"):
        table.add_column(column, justify="left" if column == "piece" else "right")
    for row in rows:
        table.add_row(
            str(row["batch"]),
            row["piece"],
            f"{1000 * row['seconds']:.3g} ms",
            f"{row['share']:.1%}",
            "" if row["gflops"] is None else f"{row['gflops']:.1f}",
            "" if row["of peak"] is None else f"{row['of peak']:.0%}",
            end_section=row["piece"] == iteration.WITHOUT,
            style="bold" if row["piece"].startswith("=") else None,
        )
    Console().print(table)
    print(f"peak, multiply-adds in registers: {rows[0]['peak'] / 1e9:.1f} GFLOPS")
    return rows


def _kernel(options: argparse.Namespace) -> Rows:
    batches = options.batches or kernel.BATCHES
    with _progress(len(batches) * len(kernel.LAYERS)) as progress:
        rows = kernel.run(batches, options.repeats, progress)
    table = Table(title=f"One block, median of {options.repeats} slices (lowest to highest)")
    columns = ("layer", "batch", "version", "forward", "forward + backward", "against reference")
    for column in (*columns, "forward, of peak"):
        table.add_column(column)
    for row in rows:
        table.add_row(
            row["layer"],
            str(row["batch"]),
            row["version"],
            row["forward text"],
            row["both text"],
            f"{row['ratio']:.1f} x",
            f"{row['roofline']:.0%}",
            end_section=row["version"].startswith("fused"),
        )
    Console().print(table)
    return rows


def _race(options: argparse.Namespace) -> Rows:
    root = _data(options)
    entries = race.contestants(options.c3, root)
    with _progress(len(entries) * options.repeats + 1) as progress:
        rows = race.race(entries, options.repeats, progress)
        progress("project.fit, from Enter to its end")
        waits = rows[-1]["waits"] = race.waits(options.c3, root)
    table = Table(title=f"Seconds of training, mean over {options.repeats} seeds (95 % interval)")
    for column in ("loop", "target", "seconds", "against published"):
        table.add_column(column)
    for row in rows:
        ours = row is rows[-1]
        for target, seconds in row["seconds"].items():
            table.add_row(
                row["loop"],
                target,
                race.describe(seconds, row["trained"]),
                race.times_faster(row, rows[0], target),
                style="bold" if ours else None,
            )
        table.add_section()
    Console().print(table)
    print(
        f"project.fit from Enter to its end, set-up and test included: {waits['later']:.3g} s; "
        f"{waits['first']:.3g} s the first time, when it compiles"
    )
    return rows


def _scaling(options: argparse.Namespace) -> Rows:
    batches = options.batches or list(scaling.BATCHES)
    with _progress(len(batches) * len(scaling.RANKS) * options.repeats) as progress:
        rows = scaling.run(batches, _data(options), options.repeats, progress)
    table = Table(title=f"lenet5-original on several ranks, median of {options.repeats} runs")
    for column in ("batch", "ranks", "images per second", "speed-up", "efficiency", "it pays"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            str(row["batch"]),
            str(row["ranks"]),
            f"{median(row['images per second']):,.0f}",
            f"{row['speed-up']:.2f} x",
            f"{row['efficiency']:.0%}",
            "" if row["ranks"] == 1 else "yes" if row["speed-up"] > 1 else "no",
            end_section=row["ranks"] == scaling.RANKS[-1],
        )
    Console().print(table)
    return rows


QUESTIONS: dict[str, Callable[[argparse.Namespace], Rows]] = {
    "fit": _fit,
    "iteration": _iteration,
    "kernel": _kernel,
    "race": _race,
    "scaling": _scaling,
}

if __name__ == "__main__":
    main()
