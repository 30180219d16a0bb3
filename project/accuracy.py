"""Tables of accuracies from kept records: looks at the test images, and at held-out ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, pstdev
from typing import Any

from project.text_table import TextTable

NUMBERS = ("seeds", "right", "loss")
"""Of a row, what is no text."""


def table(record: Mapping[str, Any]) -> TextTable:
    """Mean, population deviation and least of each row; what no row has gets no column.

    Args:
        record: "title", "of", how many images were looked at, and "rows". Each has texts by
            column, the first row all of them, "right", how many images of each seed were, and
            where they are known "seeds" and "loss".
    """
    rows = [_texts(row, record["of"]) for row in record["rows"]]
    columns = [name for name in rows[0] if any(row.get(name) for row in rows)]
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
    """In words.

    >>> describe_seeds([0, 1, 2]), describe_seeds([0, 7]), describe_seeds([3])
    ('0 to 2', '0, 7', '3')
    """
    if len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]} to {seeds[-1]}"
    return ", ".join(map(str, seeds))
