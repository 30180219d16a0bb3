"""What a part of the report is asked for, and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple


class Verdict(StrEnum):
    """What became of the document's claims."""

    CONFIRMED = "confirmed"
    CORRECTED = "corrected"
    NOT_REPRODUCIBLE = "not reproducible"
    SHORTENED = "shortened"
    """Tried by less than it takes to say."""


class Row(NamedTuple):
    """One claim."""

    claim: str
    published: str
    """What the document says; empty where it says nothing."""
    measured: str


class Erratum(NamedTuple):
    """One thing that does not hold as the document prints it."""

    printed: str
    right: str
    evidence: str
    """What a computation made of both."""


class Figure(NamedTuple):
    """One picture."""

    file: str
    """Name of a PNG in `Task.folder`; empty for one that could not be drawn."""
    caption: str


@dataclass(frozen=True)
class Outcome:
    """What a part found."""

    verdict: Verdict
    text: str
    """A paragraph, plain."""
    rows: tuple[Row, ...]
    figures: tuple[Figure, ...] = ()
    errata: tuple[Erratum, ...] = ()


@dataclass(frozen=True)
class Task:
    """What a part is asked for."""

    root: Path
    """Absolute; holds MNIST/raw, checked."""
    folder: Path
    """Absolute and there; for figures and whatever else is worth keeping."""
    runs: int = 1
    """How often to repeat, with seeds `seed`, `seed` + 1, ..."""
    seed: int = 0
    quick: bool = False
    """Shorten what takes long."""
    force: bool = False
    """Do again what is done already."""
    progress: Callable[[float], None] = lambda fraction: None
    """To be called with the share of the work that is done, 0 to 1."""
