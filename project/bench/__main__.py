"""`python -m project.bench`: speed against the published loops, as ratios in one run."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from data import source
from project.bench import fit, kernel
from project.bench.measure import machine
from project.errors import OneLineParser, user_errors

DESCRIPTION = """fit (the default) times project.fit against the published loops; kernel times the
fused convolutional blocks against their reference. Both in turns, on this machine."""


def main(args: list[str] | None = None) -> None:
    """Runs the program.

    Args:
        args: command line without the program; None takes that of the process.
    """
    parser = OneLineParser(prog="python -m project.bench", description=DESCRIPTION)
    parser.add_argument("question", nargs="?", choices=["fit", "kernel"], default="fit")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all raw values there too")
    parser.add_argument("--root", help="folder that holds MNIST/raw (default: MNIST_ROOT)")
    parser.add_argument("--repeats", type=int, default=5, help="slices of each (default: 5)")
    parser.add_argument(
        "--only", choices=fit.RACES, action="append", help="fit: this one; may be repeated"
    )
    parser.add_argument(
        "--batches", type=int, nargs="+", default=kernel.BATCHES, help="kernel: batch sizes"
    )
    options = parser.parse_args(args)
    if options.repeats < 1:
        parser.error("--repeats must be 1 or more")
    if min(options.batches) < 1:
        parser.error("--batches must be 1 or more")
    with user_errors():
        rows = _fit(options) if options.question == "fit" else _kernel(options)
        if options.json:
            record = {"machine": machine(), "rows": rows}
            options.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(*(f"{key}: {value}" for key, value in machine().items()), sep=", ")


def _fit(options: argparse.Namespace) -> list[dict[str, Any]]:
    root = source.resolve_root(options.root)
    source.ensure(root)
    rows = []
    with Console(stderr=True).status("") as status:
        for name in options.only or fit.RACES:
            status.update(f"{name}: the published loop and ours, in turns")
            rows.append(fit.race(name, root, options.repeats))
    table = Table(title=f"Training, median of {options.repeats} slices (lowest to highest)")
    for column in ("experiment", "published per iteration", "ours per iteration", "ratio"):
        table.add_column(column)
    for row in rows:
        texts = (row["published per iteration"], row["ours per iteration"])
        table.add_row(row["experiment"], *texts, f"{row['ratio']:.1f} x")
    Console().print(table)
    return rows


def _kernel(options: argparse.Namespace) -> list[dict[str, Any]]:
    with Console(stderr=True).status("") as status:
        rows = kernel.run(options.batches, options.repeats, status.update)
    table = Table(title=f"One block, median of {options.repeats} slices (lowest to highest)")
    columns = ("layer", "batch", "version", "forward", "forward + backward", "against reference")
    for column in (*columns, "forward, of peak"):
        table.add_column(column)
    for row in rows:
        table.add_row(
            row["layer"],
            str(row["batch"]),
            row["version"],
            row["forward text"],
            row["both text"],
            f"{row['ratio']:.1f} x",
            f"{row['roofline']:.0%}",
            end_section=row["version"].startswith("fused"),
        )
    Console().print(table)
    return rows


if __name__ == "__main__":
    main()
