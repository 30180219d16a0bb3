"""The content of both forms of the report, from the finished parts of a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from project.reproduce import store
from project.reproduce.parts import PARTS, PROBLEMS, Part
from project.reproduce.store import Finished
from project.text_table import facts

TITLE = "The document, claim by claim"
LEAD = (
    "What the source document prints (published) beside what this code measures. Its errors stand "
    "in tables of their own; docs/errata.md lists them with the tests that show them."
)
ERRATA = "Not so as printed:"
PENDING = "not checked"


class Section(NamedTuple):
    """One finished part."""

    part: Part
    finished: Finished
    table: str | None
    """Name of the file with a line for each run; None if there is none."""

    @property
    def heading(self) -> str:
        """The heading, such as "Problem 7: LeNet-5"."""
        return f"Problem {self.part.problem}: {self.part.title}"

    @property
    def facts(self) -> str:
        """Number of runs, first seed and seconds of the part."""
        options, seconds = self.finished.options, self.finished.seconds
        runs = f"{options['runs']} runs from seed {options['seed']}, "
        shortened = "shortened by --quick, " if options["quick"] else ""
        return f"{runs * (options['runs'] > 1)}{shortened}ran for {seconds:.1f} s"


def sections(folder: Path) -> list[Section]:
    """Returns the finished parts of the folder, in the order of the problems."""
    found = [(part, store.load(folder, part.name)) for part in PARTS]
    finished = [Section(part, record, _table(folder, part)) for part, record in found if record]
    return sorted(finished, key=lambda section: section.part.problem)


def _table(folder: Path, part: Part) -> str | None:
    name = f"{part.name}.csv"
    return name if (folder / name).is_file() else None


def overview(found: Sequence[Section]) -> list[tuple[str, str, str]]:
    """Returns number, title and verdict of each problem, in order."""
    rows = []
    for problem, name in PROBLEMS.items():
        own = [section for section in found if section.part.problem == problem]
        rows += [(str(problem), s.part.title, s.finished.outcome.verdict.value) for s in own]
        rows += [] if own else [(str(problem), name, PENDING)]
    return rows


def machines(found: Sequence[Section]) -> list[str]:
    """Returns descriptions of the machines on which the parts ran, each once."""
    return list(dict.fromkeys(facts(section.finished.machine) for section in found))
