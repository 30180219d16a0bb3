"""Stores finished parts, in one JSON file each, so that they need not run again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from callbacks.files import write_json
from project.reproduce.record import Erratum, Figure, Outcome, Row, Verdict


@dataclass(frozen=True)
class Finished:
    """A finished part."""

    outcome: Outcome
    options: dict[str, Any]
    """The options that its outcome depends on."""
    seconds: float
    machine: dict[str, Any]
    """Hardware, versions and commit."""


def load(folder: Path, name: str) -> Finished | None:
    """Returns the part of that name, if the folder holds it completely, with its figures."""
    try:
        record = json.loads(_file(folder, name).read_text(encoding="utf-8"))
        outcome = record.pop("outcome")
        figures = tuple(Figure(*figure) for figure in outcome["figures"])
        rows = tuple(Row(*row) for row in outcome["rows"])
        errata = tuple(Erratum(*erratum) for erratum in outcome["errata"])
        verdict = Verdict(outcome["verdict"])
        finished = Finished(Outcome(verdict, outcome["text"], rows, figures, errata), **record)
        is_whole = all((folder / figure.file).is_file() for figure in figures)
        is_whole &= "runs" in finished.options and isinstance(finished.machine, dict)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    return finished if is_whole else None


def save(folder: Path, name: str, finished: Finished) -> None:
    """Writes the part, atomically."""
    write_json(_file(folder, name), asdict(finished))


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.json"
