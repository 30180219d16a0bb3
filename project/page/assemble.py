"""Combines the sources of this folder and the content of a page into one file."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

from project.errors import UserError
from project.page.contents import Content

SOURCES = Path(__file__).parent
MOST = 1_000_000  # bytes of the file

# The places in index.html for the other sources.
STYLE = '<link rel="stylesheet" href="style.css">'
SCRIPT = '<script type="module" src="main.js"></script>'
FACTS = '<script id="facts" type="application/json">'
DATA = '<script id="data" type="text/x-base85">'

IMPORT = re.compile(r'^import .*? from "\./(\w+\.js)";\n', re.MULTILINE | re.DOTALL)
EXPORT = re.compile(r"^export (?=(?:async )?(?:function|const|class) (\w+))", re.MULTILINE)


def assemble(content: Content) -> str:
    """Returns the page as one text that needs no network.

    Raises:
        UserError: it would be too large.
    """
    # Escaped as JSON allows, since "</script>" would end the element.
    facts = json.dumps(content.facts, separators=(",", ":")).replace("<", "\\u003c")
    text = (SOURCES / "index.html").read_text(encoding="utf-8")
    for place, filling in (
        (STYLE, f"<style>\n{_read('style.css')}</style>"),
        (FACTS, FACTS + facts),
        (DATA, DATA + base64.b85encode(content.data).decode()),
        (SCRIPT, f'<script type="module">\n{script("main.js")}</script>'),
    ):
        assert text.count(place) == 1, place
        text = text.replace(place, filling)
    if len(text.encode()) > MOST:
        raise UserError(
            f"the page would have {len(text.encode()):,} bytes, more than {MOST:,}; "
            f"name fewer checkpoints than {len(content.facts['networks'])}"
        )
    return text


def content_of(page: str) -> Content:
    """Returns the content that `assemble` put into a page.

    Raises:
        UserError: the page is not from `assemble`.
    """
    if not all(opening in page for opening in (FACTS, DATA)):
        raise UserError("there are no networks in this file; name a page of project.export.")
    facts, data = (page.split(opening)[1].split("</script>")[0] for opening in (FACTS, DATA))
    return Content(json.loads(facts), base64.b85decode(data))


def script(main: str) -> str:
    """Combines a module and all that it imports into one script, each after its imports.

    Each module keeps a scope of its own, which returns the names that it exports.
    """
    done: dict[str, str] = {}

    def add(name: str) -> None:
        text = _read(name)
        for needed in IMPORT.findall(text):
            if needed not in done:
                add(needed)
        names = ", ".join(EXPORT.findall(text))
        body = EXPORT.sub("", IMPORT.sub("", text))
        done[name] = f"const {{ {names} }} = (() => {{\n{body}return {{ {names} }};\n}})();\n"

    add(main)
    return "\n".join(done.values())


def _read(name: str) -> str:
    return (SOURCES / name).read_text(encoding="utf-8")
