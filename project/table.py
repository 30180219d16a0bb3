"""The tables printed at the end of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def print_results(record: dict[str, Any], folder: Path | None) -> None:
    """Prints the results of a run and the location of its files.

    Args:
        record: as `callbacks.Results` gathers it.
        folder: folder of the run; None if nothing was written.
    """
    seconds = record["seconds"]
    rows = {
        **_describe_outcome("validation", record["validation"]),
        **_describe_outcome("test", record["test"]),
        "parameters": f"{record['parameters']:,}",
        "iterations": f"{record['iterations']:,}" if record["iterations"] else None,
        "seconds": ", ".join(f"{stage} {_short(s)}" for stage, s in seconds.items() if s),
        "images per second": f"{speed:,.0f}" if (speed := record["images_per_second"]) else None,
        "device": ", kernel ".join(filter(None, (record["device"], record["backend"]))),
        "learner": describe_learner(record["learner"], record["why_not_faster"]),
        "run folder": str(folder) if folder else None,
        "look at it": "tensorboard --logdir runs --host localhost" if folder else None,
    }
    table = Table(title=record["config"], show_header=False, title_justify="left")
    for name, value in rows.items():
        if value is not None:
            table.add_row(name, value)
    _print(table)


def _print(table: Table) -> None:
    # Otherwise rich would take [lr=0.1] in a run's name for markup and :x: for an emoji.
    Console(markup=False, emoji=False).print(table)


def _short(seconds: float) -> str:
    return f"{seconds:.1f}" if seconds >= 1 else f"{seconds:.2g}"


def _describe_outcome(stage: str, outcome: dict[str, Any] | None) -> dict[str, str]:
    if outcome is None:
        return {}
    right = f"{outcome['accuracy']:.2%}  ({outcome['correct']:,} of {outcome['total']:,})"
    collapsed = "  Collapsed: every image gets the same answer."
    return {
        f"{stage} accuracy": right + collapsed * (outcome["predicted_classes"] == 1),
        f"{stage} loss": f"{outcome['loss']:.4f} per image",
    }


def describe_learner(name: str | None, why_not_faster: str) -> str | None:
    """Describes the learner and why it is not a faster one; None if there is none.

    >>> describe_learner("eager", "not compiled: net.f6 is frozen")
    'eager (not compiled: net.f6 is frozen)'
    """
    return f"{name} ({why_not_faster})" if why_not_faster else name


def print_classes(confusion: list[list[int]], digits: tuple[int, ...]) -> None:
    """Prints the accuracy of each digit, and for what digits its other images were taken.

    Args:
        confusion: counts with true digits in rows, predicted ones in columns.
        digits: what each class stands for.
    """
    table = Table("digit", "accuracy", "right", "most often taken for", title="By digit")
    for position, (digit, row) in enumerate(zip(digits, confusion, strict=True)):
        right, total = row[position], sum(row)
        wrong = {other: n for other, n in zip(digits, row, strict=True) if other != digit and n}
        worst = sorted(wrong, key=wrong.__getitem__, reverse=True)[:3]
        table.add_row(
            str(digit),
            f"{right / total:.2%}" if total else "-",
            f"{right:,} of {total:,}",
            ", ".join(f"{other} ({wrong[other]})" for other in worst),
        )
    _print(table)
