"""Tables of texts, in the terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise, zip_longest
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table


class TextTable(NamedTuple):
    """A table of texts with its title and note."""

    title: str
    columns: Sequence[str]
    lines: Sequence[Sequence[str]]
    note: str = ""
    """Text below the table."""
    ours: str | None = None
    """Prefix of a text whose line is bold in the terminal."""

    def show(self) -> None:
        """Prints the table, with a rule wherever the first column changes."""
        table = Table(title=self.title)
        for name, texts in zip(self.columns, zip_longest(*self.lines), strict=False):
            is_number = all(text[:1].isdigit() for text in texts if text)
            table.add_column(name, justify="right" if is_number else "left")
        for line, following in pairwise((*self.lines, ("",))):
            is_ours = self.ours is not None and any(text.startswith(self.ours) for text in line)
            table.add_row(
                *line, end_section=line[0] != following[0], style="bold" if is_ours else None
            )
        Console(markup=False, emoji=False).print(table)
        if self.note:
            print(self.note)


def markdown(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of a table in Markdown."""
    body = (columns, ["---"] * len(columns), *lines)
    return [f"| {' | '.join(map(_cell, line))} |" for line in body]


def _cell(text: str) -> str:
    return " ".join(text.splitlines()).replace("|", "\\|").replace("<", "&lt;")


def facts(record: Mapping[str, Any]) -> str:
    """Describes the known facts of a machine in a line.

    >>> facts({"processor": "AMD EPYC", "threads": 2, "gpu": None})
    'processor AMD EPYC, threads 2'
    """
    return ", ".join(f"{name} {value}" for name, value in record.items() if value is not None)
