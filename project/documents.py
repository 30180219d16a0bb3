"""`python -m project.documents FOLDER` makes the tables of documents anew, from kept records."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from callbacks.files import write_text
from project import accuracy
from project.bench.questions import QUESTIONS
from project.errors import OneLineParser, UserError, user_errors
from project.output import folder_to_fill
from project.text_table import TextTable, facts, markdown

BEGIN, END = "<!-- from ", "<!-- end -->"
"""Around what is made from records; behind BEGIN stands their file, from the document's folder.

With a * in it, it may be any number of files, such as one for each machine.
"""

MARKED = re.compile(rf"({BEGIN}(\S+) -->\n)(?:(?!{BEGIN}).)*?(?={END})", re.DOTALL)


def main(args: list[str] | None = None) -> None:
    """Runs the program.

    Args:
        args: command line without the program; None takes that of the process.
    """
    parser = OneLineParser(prog="python -m project.documents", description=__doc__)
    parser.add_argument("folder", metavar="FOLDER", help="of Markdown files, such as docs")
    given = parser.parse_args(args)
    with user_errors():
        for path in sorted(folder_to_fill(given.folder).glob("*.md")):
            text = path.read_text(encoding="utf-8")
            if (new := renewed(path)) != text:
                write_text(path, new)
                print(path)


def renewed(document: Path) -> str:
    """The text of a document, with the tables of today's records.

    Raises:
        UserError: a table without an end, or a record that cannot be read.
    """
    text = document.read_text(encoding="utf-8")
    new, count = MARKED.subn(lambda found: found[1] + _texts(document.parent, found[2]), text)
    if count != text.count(BEGIN):
        raise UserError(f"{document} has a table without an end; write {END} behind it.")
    return new


def _texts(folder: Path, name: str) -> str:
    paths = sorted(folder.glob(name)) if "*" in name else [folder / name]
    return "".join(map(_text, paths)) + "\n" * bool(paths)


def _text(path: Path) -> str:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        table = table_of(record)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"{path} is no record that a table is made from ({error!r}).") from error
    above = f"*{table.title}*: {facts(record['machine'])}."
    parts = [above, "\n".join(markdown(table.columns, table.lines)), table.note]
    return "".join(f"\n{part}\n" for part in parts if part)


def table_of(record: dict[str, Any]) -> TextTable:
    """What a record comes to: of the bench, or of accuracies."""
    if question := record.get("question"):
        return QUESTIONS[question].table(record)
    return accuracy.table(record)


if __name__ == "__main__":
    main()
