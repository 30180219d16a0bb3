"""Writes the report: Markdown with pictures beside it, and one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from callbacks.files import write_text, written_whole
from project.reproduce.page import to_html
from project.reproduce.record import Erratum, Row
from project.reproduce.sections import ERRATA, LEAD, TITLE, Section, machines, overview, sections
from project.text_table import markdown


def write(folder: Path) -> None:
    """Writes report.md and report.html from the finished parts of the folder."""
    found = sections(folder)
    write_text(folder / "report.md", to_markdown(found, ""))
    write_text(folder / "report.html", to_html(found, folder))


def publish(folder: Path, target: Path) -> None:
    """Writes the report into documentation: results.md, and its other files in results/."""
    found = sections(folder)
    write_text(target / "results.md", to_markdown(found, "results/"))
    for section in found:
        pictures = [figure.file for figure in section.finished.outcome.figures]
        for name in (*pictures, section.table):
            if name:
                with written_whole(target / "results" / name) as file:
                    file.write((folder / name).read_bytes())


def to_markdown(found: Sequence[Section], place: str) -> str:
    """Returns the report in Markdown.

    Args:
        found: sections of the report.
        place: prefix of the names of its other files.
    """
    contents = markdown(("problem", "", "verdict"), overview(found))
    lines = [f"# {TITLE}", "", LEAD, "", *contents]
    for section in found:
        outcome = section.finished.outcome
        lines += ["", f"## {section.heading}", "", f"**{outcome.verdict}** ({section.facts})", ""]
        lines += [outcome.text, "", *markdown(Row._fields, outcome.rows)]
        if section.table:
            lines += ["", f"Every run: [{section.table}]({place}{section.table})"]
        if outcome.errata:
            lines += ["", ERRATA, "", *markdown(Erratum._fields, outcome.errata)]
        for figure in outcome.figures:
            lines += ["", f"![{figure.caption}]({place}{figure.file})", "", figure.caption]
    lines += ["", "## Measured on", "", *(f"- {text}" for text in machines(found))]
    return "\n".join(lines) + "\n"
