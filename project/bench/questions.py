"""The questions of the bench: how each is measured, and how its table is made from its rows."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from data import source
from project.bar import shown
from project.bench import drawing, fit, iteration, kernel, race, scaling
from project.bench.measure import devices
from project.text_table import TextTable

Rows = list[dict[str, Any]]


class Question(NamedTuple):
    """A question that the bench can answer."""

    run: Callable[[argparse.Namespace], Rows]
    """Measures the rows, by the options of the command line."""
    title: str
    """Title of the table, with names of options in braces."""
    columns: Sequence[str]
    lines: Callable[[Rows], list[tuple[str, ...]]]
    """Makes the lines of the table from the rows."""
    note: Callable[[Rows], str] = lambda rows: ""
    """Makes the text below the table from the rows."""
    ours: str | None = None
    """Beginning of a text whose line is highlighted."""
    draw: Callable[[Rows, Path], None] | None = None
    """Writes the figure."""

    def table(self, record: Mapping[str, Any]) -> TextTable:
        """Makes the table of a record, as `--json` writes it."""
        lines, note = self.lines(record["rows"]), self.note(record["rows"])
        return TextTable(record["title"], self.columns, lines, note, self.ours)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[str], None]]:
    """Shows progress; call what it yields with the name of each of `total` measurements."""
    begun = itertools.count()
    with shown(total) as at:
        yield lambda name: at(name, next(begun))


def _data(options: argparse.Namespace) -> Path:
    root = source.resolve_root(options.root)
    source.ensure(root)
    return root.resolve()


def _fit(options: argparse.Namespace) -> Rows:
    root = _data(options)
    races = {
        (name, device): fit.contestants(name, root, device)
        for name, device in itertools.product(options.only or fit.RACES, devices())
    }
    rows = []
    with _progress(sum(map(len, races.values())) * (options.repeats + 1)) as progress:
        for (name, device), entries in races.items():
            rows += fit.race(name, device, entries, options.repeats, progress)
    return rows


def _iteration(options: argparse.Namespace) -> Rows:
    batches = options.batches or iteration.BATCHES
    with _progress(2 * len(batches)) as progress:
        return iteration.run(options.c3, _data(options), batches, options.repeats, progress)


def _kernel(options: argparse.Namespace) -> Rows:
    batches = options.batches or kernel.BATCHES
    with _progress(len(batches) * len(kernel.LAYERS) * len(devices())) as progress:
        return kernel.run(batches, options.repeats, progress)


def _race(options: argparse.Namespace) -> Rows:
    root = _data(options)
    entries = {device: race.contestants(options.c3, root, device) for device in devices()}
    rows = []
    with _progress(sum(len(loops) * options.repeats + 1 for loops in entries.values())) as progress:
        for device, loops in entries.items():
            rows += race.race(loops, device, options.repeats, progress)
            progress(f"project.fit on {device}, from Enter to its end")
            rows[-1]["waits"] = race.waits(options.c3, root, device)
    return rows


def _scaling(options: argparse.Namespace) -> Rows:
    batches = options.batches or list(scaling.BATCHES)
    with _progress(len(batches) * len(scaling.RANKS) * options.repeats) as progress:
        return scaling.run(batches, _data(options), options.repeats, progress)


QUESTIONS = {
    "fit": Question(
        _fit,
        "Training, median of {repeats} slices (lowest to highest)",
        ("experiment", "device", "loop", "per iteration", "against published"),
        fit.lines,
        ours=fit.OURS,
        draw=drawing.save,
    ),
    "iteration": Question(
        _iteration,
        "One iteration of lenet5-{c3} on one CPU thread, the middle one of {repeats} runs",
        ("batch", "piece", "time", "share", "GFLOPS", "of peak"),
        iteration.lines,
        iteration.note,
        ours="=",
    ),
    "kernel": Question(
        _kernel,
        "One block, median of {repeats} slices (lowest to highest)",
        (
            *("layer", "batch", "device", "version", "forward", "forward + backward"),
            *("against reference", "forward, of peak"),
        ),
        kernel.lines,
        ours="fused",
    ),
    "race": Question(
        _race,
        "Seconds of training, mean over {repeats} seeds (95 % interval)",
        ("loop", "device", "target", "seconds", "against published"),
        race.lines,
        race.note,
        ours=fit.OURS,
        draw=drawing.save_race,
    ),
    "scaling": Question(
        _scaling,
        "lenet5-original on several ranks, median of {repeats} runs (lowest to highest)",
        ("batch", "ranks", "images per second", "speed-up", "efficiency", "it pays"),
        scaling.lines,
    ),
}
