"""Runs parts one after the other, shows their progress, and stores their outcomes."""

from __future__ import annotations

import dataclasses
import importlib
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from project.bar import shown
from project.drawing import default_style
from project.reproduce import store
from project.reproduce.parts import Part
from project.reproduce.record import Outcome, Task


class Options(NamedTuple):
    """The options of the command line for all parts."""

    folder: Path
    root: str | None
    runs: int | None
    """None for each part's own number."""
    seed: int
    quick: bool
    force: bool
    named: bool
    """Whether parts were asked for by name."""

    def of(self, part: Part) -> dict[str, Any]:
        """Returns the options that determine the part's outcome."""
        if part.quick is None:
            return {"runs": 1, "seed": self.seed, "quick": False}
        runs = self.runs or part.effort(quick=self.quick, named=self.named).runs
        return {"runs": runs, "seed": self.seed, "quick": self.quick}


def due(parts: Sequence[Part], options: Options) -> list[Part]:
    """Returns the parts that have not run with these options, or are to run again."""

    def is_finished(part: Part) -> bool:
        finished = store.load(options.folder, part.name)
        if finished is None:
            return False
        wanted = options.of(part)
        if options.runs is None:
            # A finished part may have more runs than the default.
            wanted["runs"] = max(wanted["runs"], finished.options["runs"])
        return finished.options == wanted

    return [part for part in parts if options.force or not is_finished(part)]


def run(parts: Sequence[Part], options: Options, rank: int) -> None:
    """Runs the parts and stores each as soon as it is finished.

    Ranks above 0 take part in shared parts only.

    Raises:
        DatasetError: MNIST is missing and cannot be downloaded.
    """
    # Imported only now: it takes seconds, and a report of finished parts does not need it.
    from data import source

    root = source.resolve_root(options.root).resolve()
    source.ensure(root)
    options.folder.mkdir(parents=True, exist_ok=True)
    weights = [_weight(part, options) for part in parts]
    with shown(sum(weights)) if rank == 0 else nullcontext(_nothing) as at:
        for i, part in enumerate(parts):
            before, weight = sum(weights[:i]), weights[i]
            at(part.name, before)

            def progress(
                share: float, name: str = part.name, before: float = before, weight: float = weight
            ) -> None:
                at(name, before + share * weight)

            wanted = options.of(part)
            task = Task(
                root, options.folder.resolve(), **wanted, force=options.force, progress=progress
            )
            if rank == 0:
                store.save(options.folder, part.name, _finish(part, task, wanted))
            else:
                _module(part).run_own_part(task)
            at(part.name, before + weight)


def _nothing(what: str, done: float) -> None:
    """Shows no progress: of several ranks, only the first one does."""


def _weight(part: Part, options: Options) -> float:
    runs: int = options.of(part)["runs"]
    return part.effort(quick=options.quick, named=options.named).seconds * runs


def _module(part: Part) -> Any:
    return importlib.import_module(f"project.reproduce.{part.name}")


def _finish(part: Part, task: Task, wanted: dict[str, Any]) -> store.Finished:
    from project.bench.measure import machine

    start = time.perf_counter()
    with default_style():
        outcome: Outcome = _module(part).run(task)
    seconds = time.perf_counter() - start
    drawn = tuple(figure for figure in outcome.figures if figure.file)
    outcome = dataclasses.replace(outcome, figures=drawn)
    return store.Finished(outcome, wanted, seconds, machine())
