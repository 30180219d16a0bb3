"""`python -m project.documents FOLDER` makes the tables of documents anew, from kept records."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from callbacks.files import write_text
from project import accuracy
from project.bench.questions import QUESTIONS
from project.errors import OneLineParser, UserError, content_of, file_content, user_errors
from project.output import folder_to_fill
from project.text_table import TextTable, facts, markdown

BEGIN, END = "<!-- from ", "<!-- end -->"
"""Marks around a generated table. BEGIN is followed by its record's path from the document.

A * in the path matches any number of files, such as one for each machine.
"""

MARKED = re.compile(rf"({BEGIN}([^\r\n]+?) -->\s*?\n)(?:(?!{BEGIN}).)*?(?={END})", re.DOTALL)


def main(args: list[str] | None = None) -> None:
    """Runs the program.

    Args:
        args: command-line arguments; None takes those of the process.
    """
    parser = OneLineParser(prog="python -m project.documents", description=__doc__)
    parser.add_argument("folder", metavar="FOLDER", help="of Markdown files, such as docs")
    given = parser.parse_args(args)
    with user_errors():
        folder = folder_to_fill(given.folder)
        texts = {path: renewed(path) for path in sorted(folder.glob("*.md"))}
        if not texts:
            raise UserError(f"{folder} has no Markdown file (*.md).")
        for path, new in texts.items():
            if new != read(path):
                write_text(path, new)
                print(path)


def read(document: Path) -> str:
    """Returns the text of a document with its own line endings.

    Raises:
        UserError: it is not in UTF-8.
    """
    content = file_content(document)
    with content_of(document, "text in UTF-8"):
        return content.decode()


def renewed(document: Path) -> str:
    """Returns the text of a document with its tables made anew from their records.

    Raises:
        UserError: a table has no end, or a record cannot be read.
    """
    text = read(document)

    def made(found: re.Match[str]) -> str:
        lines = _texts(document.parent, found[2])
        return found[1] + (lines.replace("\n", "\r\n") if found[1].endswith("\r\n") else lines)

    new, count = MARKED.subn(made, text)
    if count != text.count(BEGIN):
        raise UserError(
            f"{document} has a table without an end; write {END} behind it, and nothing more into "
            "the line that it begins with."
        )
    return new


def _texts(folder: Path, name: str) -> str:
    with content_of(folder / name, "name of a record"):
        paths = sorted(folder.glob(name)) if "*" in name else [folder / name]
    return "".join(map(_text, paths)) + "\n" * bool(paths)


def _text(path: Path) -> str:
    with content_of(path, "record that a table is made from"):
        record = json.loads(file_content(path))
        table = table_of(record)
        above = f"*{table.title}*: {facts(record['machine'])}."
        parts = [above, "\n".join(markdown(table.columns, table.lines)), table.note]
    return "".join(f"\n{part}\n" for part in parts if part)


def table_of(record: dict[str, Any]) -> TextTable:
    """Makes the table of a record, either of the bench or of accuracies."""
    if question := record.get("question"):
        return QUESTIONS[question].table(record)
    return accuracy.table(record)


if __name__ == "__main__":
    main()
