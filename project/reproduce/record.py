"""The task of a part of the report, and its outcome."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple


class Verdict(StrEnum):
    """The verdict on the document's claims."""

    CONFIRMED = "confirmed"
    CORRECTED = "corrected"
    NOT_REPRODUCIBLE = "not reproducible"
    SHORTENED = "shortened"
    """Run with less effort than a verdict needs."""


class Row(NamedTuple):
    """One claim, published and measured."""

    claim: str
    published: str
    """What the document says; empty where it says nothing."""
    measured: str


class Erratum(NamedTuple):
    """One thing that does not hold as the document prints it."""

    printed: str
    right: str
    evidence: str
    """The results of a computation with both."""


class Figure(NamedTuple):
    """One picture."""

    file: str
    """Name of a PNG in `Task.folder`; empty for one that could not be drawn."""
    caption: str


@dataclass(frozen=True)
class Outcome:
    """The outcome of a part."""

    verdict: Verdict
    text: str
    """A paragraph of plain text."""
    rows: tuple[Row, ...]
    figures: tuple[Figure, ...] = ()
    errata: tuple[Erratum, ...] = ()


@dataclass(frozen=True)
class Task:
    """The task of a part."""

    root: Path
    """Absolute path of the folder that holds MNIST/raw, which is checked."""
    folder: Path
    """Absolute path of an existing folder, for figures and other files."""
    runs: int = 1
    """Number of runs, with seeds `seed`, `seed` + 1, ..."""
    seed: int = 0
    quick: bool = False
    """Whether to shorten long computations."""
    force: bool = False
    """Whether to repeat what is done already."""
    progress: Callable[[float], None] = lambda fraction: None
    """To be called with the share of the work that is done, 0 to 1."""
