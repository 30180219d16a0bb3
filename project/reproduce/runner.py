"""Runs parts one after the other, under one progress bar, and keeps what they found."""

from __future__ import annotations

import importlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from project.reproduce import store
from project.reproduce.parts import Part
from project.reproduce.record import Task


class Options(NamedTuple):
    """What the command line says about all parts."""

    folder: Path
    root: str | None
    runs: int | None
    """None takes each part's own."""
    seed: int
    quick: bool
    force: bool

    def of(self, part: Part) -> dict[str, Any]:
        """Those that decide about the part's outcome."""
        if part.quick is None:
            return {"runs": 1, "seed": self.seed, "quick": False}
        runs = self.runs or part.effort(quick=self.quick).runs
        return {"runs": runs, "seed": self.seed, "quick": self.quick}


def due(parts: Sequence[Part], options: Options) -> list[Part]:
    """The parts that have not run with these options, or are to run again."""

    def is_finished(part: Part) -> bool:
        finished = store.load(options.folder, part.name)
        return finished is not None and finished.options == options.of(part)

    return [part for part in parts if options.force or not is_finished(part)]


def run(parts: Sequence[Part], options: Options) -> None:
    """Runs the parts and stores each as soon as it is finished.

    Raises:
        DatasetError: MNIST is not there and cannot be had.
    """
    # Only now, since it takes seconds: a report of finished parts needs nothing of it.
    from data import source

    root = source.resolve_root(options.root).resolve()
    source.ensure(root)
    options.folder.mkdir(parents=True, exist_ok=True)
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("done, left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        weights = [_weight(part, options) for part in parts]
        total = bar.add_task("", total=sum(weights))
        for i, part in enumerate(parts):
            done, weight = sum(weights[:i]), weights[i]
            bar.update(total, description=part.name, completed=done)

            def progress(share: float, done: float = done, weight: float = weight) -> None:
                bar.update(total, completed=done + share * weight)

            wanted = options.of(part)
            task = Task(
                root, options.folder.resolve(), **wanted, force=options.force, progress=progress
            )
            store.save(options.folder, part.name, _finish(part, task, wanted))
        bar.update(total, completed=sum(weights))


def _weight(part: Part, options: Options) -> float:
    runs: int = options.of(part)["runs"]
    return part.effort(quick=options.quick).seconds * runs


def _finish(part: Part, task: Task, wanted: dict[str, Any]) -> store.Finished:
    from callbacks.results import git_revision
    from project.bench.measure import machine

    start = time.perf_counter()
    outcome = importlib.import_module(f"project.reproduce.{part.name}").run(task)
    seconds = time.perf_counter() - start
    return store.Finished(outcome, wanted, seconds, {**machine(), "commit": git_revision()})
