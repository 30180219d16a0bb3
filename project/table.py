"""The table that ends a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def print_results(record: dict[str, Any], folder: Path | None) -> None:
    """Prints what a run reached and where its files are.

    Args:
        record: as `callbacks.Results` gathers it.
        folder: of the run; None where nothing was written.
    """
    test, seconds = record["test"], record["seconds"]
    collapsed = "  Collapsed: every image gets the same answer."
    rows = {
        "test accuracy": f"{test['accuracy']:.2%}  ({test['correct']:,} of {test['total']:,})"
        + collapsed * (test["predicted_classes"] == 1),
        "test loss": f"{test['loss']:.4f} per image",
        "parameters": f"{record['parameters']:,}",
        "iterations": f"{record['iterations']:,}" if record["iterations"] else None,
        "seconds": ", ".join(f"{stage} {spent:.1f}" for stage, spent in seconds.items() if spent),
        "images per second": f"{speed:,.0f}" if (speed := record["images_per_second"]) else None,
        "device": f"{record['device']}, kernel {record['backend']}",
        "run folder": str(folder) if folder else None,
        "look at it": "tensorboard --logdir runs" if folder else None,
    }
    table = Table(title=record["config"], show_header=False, title_justify="left")
    for name, value in rows.items():
        if value is not None:
            table.add_row(name, value)
    Console().print(table)
