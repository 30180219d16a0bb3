"""`python -m project.bench`: speed against the published loops, as ratios in one run."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from data import source
from project.bench import fit
from project.bench.measure import machine
from project.errors import user_errors


def main(args: list[str] | None = None) -> None:
    """Runs the program.

    Args:
        args: command line without the program; None takes that of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m project.bench",
        description="Times project.fit against the published loops, in turns, on this machine.",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all raw values there too")
    parser.add_argument("--root", help="folder that holds MNIST/raw (default: MNIST_ROOT)")
    parser.add_argument("--repeats", type=int, default=5, help="slices of each loop (default: 5)")
    parser.add_argument(
        "--only", choices=fit.RACES, action="append", help="this experiment; may be repeated"
    )
    options = parser.parse_args(args)
    root = source.resolve_root(options.root)
    rows = []
    with user_errors():
        source.ensure(root)
        for name in options.only or fit.RACES:
            with Console(stderr=True).status(f"{name}: the published loop and ours, in turns"):
                rows.append(fit.race(name, root, options.repeats))
    table = Table(title=f"Training, median of {options.repeats} slices (lowest to highest)")
    for column in ("experiment", "published per iteration", "ours per iteration", "ratio"):
        table.add_column(column, justify="right" if column == "ratio" else "left")
    for row in rows:
        table.add_row(
            row["experiment"],
            row["published per iteration"],
            row["ours per iteration"],
            f"{row['ratio']:.1f} x",
        )
    Console().print(table)
    print(*(f"{key}: {value}" for key, value in machine().items()), sep=", ")
    if options.json:
        with user_errors():
            record = {"machine": machine(), "rows": rows}
            options.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
