"""The report as one HTML page that needs no other file."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Sequence
from pathlib import Path
from string import Template

from project.reproduce.record import Erratum, Figure, Row, Verdict
from project.reproduce.sections import ERRATA, LEAD, TITLE, Section, machines, overview

# Matches y_l, y_{l-1} and D_KL, but no underscore after a word of several letters.
INDEX = re.compile(r"(?<!\w)(d?[A-Za-z])_(?:\{([^{}]+)\}|([A-Za-z]|KL|\d+)\b)")
# Matches k^2, A^T and z^(1).
POWER = re.compile(r"\^(?:\(([^()]+)\)|(T\b|\d+))")

PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>$title</title>
<style>
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 56rem; margin: 2rem auto;
  padding: 0 1rem; }
h1, h2 { line-height: 1.2; }
h2 { margin-top: 3rem; border-top: 1px solid #ddd; padding-top: 1.5rem; }
table { border-collapse: collapse; width: 100%; font-size: 0.9rem; }
th, td { text-align: left; vertical-align: top; padding: 0.35rem 0.9rem 0.35rem 0;
  border-bottom: 1px solid #e5e5e5; overflow-wrap: anywhere; }
th { color: #666; font-weight: normal; }
a { color: #2050d0; }
figure { margin: 1.8rem 0; }
figure img { max-width: 100%; height: auto; }
figcaption, .facts { color: #666; font-size: 0.9rem; }
.verdict { padding: 0.1rem 0.6rem; border-radius: 1rem; color: #fff; background: #777;
  font-size: 0.85rem; white-space: nowrap; }
.confirmed { background: #2a7d46; }
.corrected { background: #a8590a; }
.not-reproducible { background: #a3262a; }
</style>
</head>
<body>
<h1>$title</h1>
<p>$lead</p>
$overview
$sections
<h2>Measured on</h2>
<ul>
$machines
</ul>
</body>
</html>
""")


def to_html(found: Sequence[Section], folder: Path) -> str:
    """Returns the report as one page that needs no other file.

    Args:
        found: sections of the report.
        folder: folder of their pictures and tables.
    """
    chosen = {section.part.title for section in found}
    rows = []
    for problem, title, verdict in overview(found):
        name = html.escape(title)
        if title in chosen:
            name = f'<a href="#problem-{problem}">{name}</a>'
        rows.append((problem, name, _badge(verdict)))
    return PAGE.substitute(
        title=TITLE,
        lead=LEAD,
        overview=_html_table(("problem", "", "verdict"), rows),
        sections="\n".join(_html_section(section, folder) for section in found),
        machines="\n".join(f"<li>{html.escape(text)}</li>" for text in machines(found)),
    )


def _html_section(section: Section, folder: Path) -> str:
    outcome = section.finished.outcome
    errata = (f"<p>{ERRATA}</p>", _text_table(Erratum._fields, outcome.errata))
    parts = [
        f'<h2 id="problem-{section.part.problem}">{html.escape(section.heading)}</h2>',
        f'<p>{_badge(outcome.verdict)} <span class="facts">{section.facts}</span></p>',
        f"<p>{mathematics(outcome.text)}</p>",
        _text_table(Row._fields, outcome.rows),
        _html_link(folder / section.table) if section.table else "",
        *(errata if outcome.errata else ()),
        *(_html_figure(figure, folder) for figure in outcome.figures),
    ]
    return "\n".join(parts)


def _html_figure(figure: Figure, folder: Path) -> str:
    picture = base64.b64encode((folder / figure.file).read_bytes()).decode()
    caption = html.escape(figure.caption)
    image = f'<img alt="{caption}" src="data:image/png;base64,{picture}">'
    return f"<figure>{image}<figcaption>{mathematics(figure.caption)}</figcaption></figure>"


def _html_link(table: Path) -> str:
    content = base64.b64encode(table.read_bytes()).decode()
    link = f'<a download="{table.name}" href="data:text/csv;base64,{content}">{table.name}</a>'
    return f"<p>Every run: {link}</p>"


def _text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table whose cells are plain text."""
    return _html_table(header, [[mathematics(cell) for cell in row] for row in rows])


def mathematics(text: str) -> str:
    """Converts plain text to HTML, with subscripts and superscripts in formulas.

    >>> mathematics("dy_l/dy_{l-1} < k^2")
    'dy<sub>l</sub>/dy<sub>l-1</sub> &lt; k<sup>2</sup>'
    """
    low = INDEX.sub(r"\1<sub>\2\3</sub>", html.escape(text, quote=False))
    return POWER.sub(r"<sup>\1\2</sup>", low)


def _html_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table whose cells are HTML already."""
    head = "".join(f"<th>{cell}</th>" for cell in header)
    body = "\n".join("<tr>" + "".join(f"<td>{c}</td>" for c in row) + "</tr>" for row in rows)
    return f"<table>\n<tr>{head}</tr>\n{body}\n</table>"


def _badge(verdict: Verdict | str) -> str:
    return f'<span class="verdict {str(verdict).replace(" ", "-")}">{verdict}</span>'
