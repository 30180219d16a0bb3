"""`python -m project.accuracy FILE RECIPE RUN...` adds a row to the record of a table.

The row says how many images each run told right, of test or, where it had none, of validation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from callbacks.files import write_rows
from data.paths import expanded
from project.errors import OneLineParser, UserError, content_of, file_content, user_errors
from project.text_table import TextTable

NUMBERS = ("seeds", "right", "loss")
"""Entries of a row that are not text."""


def main(args: list[str] | None = None) -> None:
    """Runs the program.

    Args:
        args: command-line arguments; None takes those of the process.
    """
    parser = OneLineParser(prog="python -m project.accuracy", description=__doc__)
    add = parser.add_argument
    add("file", type=expanded, metavar="FILE", help="such as docs/accuracy/tuned.json")
    add("recipe", metavar="RECIPE", help="what the row is called")
    add("runs", nargs="+", type=expanded, metavar="RUN", help="a folder with results.json")
    given = parser.parse_args(args)
    with user_errors():
        record = _read(given.file)
        with content_of(given.file, "record of a table"):
            table(record)
            of, rows = int(record["of"]), record["rows"][:]
        record["rows"] = [*rows, row_of(given.recipe, given.runs, of)]
        write_rows(given.file, record)


def row_of(recipe: str, runs: Sequence[Path], of: int) -> dict[str, Any]:
    """Returns a row with the results of runs, in the order of their seeds.

    Raises:
        UserError: a run was evaluated on another number of images than `of`, or on none, or is
            named twice.
    """
    if len({run.resolve() for run in runs}) < len(runs):
        raise UserError("a run is named twice; each counts once.")
    results = sorted((_result(run, of) for run in runs), key=lambda one: one["seed"])
    return {
        "recipe": recipe,
        "seeds": [one["seed"] for one in results],
        "right": [one["right"] for one in results],
        "commit": ", ".join(sorted({one["commit"] for one in results})),
    }


def _result(run: Path, of: int) -> dict[str, Any]:
    path = run / "results.json"
    record = _read(path)
    with content_of(path, "result of a run"):
        outcome = record["test"] or record["validation"]
        if not outcome:
            raise UserError(f"{path} is of a run without a test and without a validation.")
        if outcome["total"] != of:
            raise UserError(
                f"the table is of {of:,} images, and there is a run of {outcome['total']:,}."
            )
        right = int(outcome["correct"])
        if not 0 <= right <= of:
            raise UserError(f"{path} says that {right:,} of {of:,} images were right.")
        commit = str(record["git"] or "unknown")[:8]
        return {"seed": int(record["seed"]), "right": right, "commit": commit}


def _read(path: Path) -> dict[str, Any]:
    text = file_content(path)
    with content_of(path, "JSON"):
        record: dict[str, Any] = json.loads(text)
    return record


def table(record: Mapping[str, Any]) -> TextTable:
    """Makes a table of each row's mean, population deviation and least, without empty columns.

    Args:
        record: "title", "of", the number of images evaluated, and "rows". Each row has texts by
            column, "right", the number of right images for each seed, and, if known, "seeds" and
            "loss".
    """
    rows = [_texts(row, record["of"]) for row in record["rows"]]
    names = dict.fromkeys(name for row in rows for name in row)
    columns = [name for name in names if any(row.get(name) for row in rows)]
    lines = [[row.get(name, "") for name in columns] for row in rows]
    return TextTable(record["title"], columns, lines)


def _texts(row: Mapping[str, Any], of: int) -> dict[str, str]:
    own = {name: str(value) for name, value in row.items() if name not in NUMBERS}
    accuracies = [100 * right / of for right in row["right"]]
    texts = [f"{accuracy:.2f}" for accuracy in accuracies]
    several = len(texts) > 1
    deviation = f" +- {pstdev(accuracies):.2f}" if several else ""
    return {
        **own,
        "seeds": describe_seeds(row.get("seeds", [])),
        "accuracy": f"{fmean(accuracies):.2f}{deviation} %",
        "least": f"{min(accuracies):.2f} %" if several else "",
        "by seed": f"{', '.join(texts)} %" if several else "",
        "loss": str(row.get("loss", "")),
    }


def describe_seeds(seeds: Sequence[int]) -> str:
    """Describes seeds in words.

    >>> describe_seeds([0, 1, 2]), describe_seeds([0, 7]), describe_seeds([3])
    ('0 to 2', '0, 7', '3')
    """
    if len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]} to {seeds[-1]}"
    return ", ".join(map(str, seeds))


if __name__ == "__main__":
    main()
