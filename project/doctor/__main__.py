"""`python -m project.doctor` examines this machine: what a user pastes into an issue."""

# PYTHON_ARGCOMPLETE_OK

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from callbacks.files import write_json
from models.kernels.trust import DeviceLostError
from project.doctor import kernels, speed
from project.doctor.surroundings import surroundings
from project.errors import OneLineParser, user_errors
from project.output import file_if_named
from project.precision import in_float32
from project.quiet import quieten
from project.table import describe_learner
from project.threads import limit_threads

DESCRIPTION = (
    "Examines this machine: what it has, whether its compiled kernels give the reference's "
    "numbers, which learner each experiment gets and how fast that is. Exits with 1 where a "
    "number is wrong."
)


def main(args: list[str] | None = None) -> None:
    """Runs the program.

    Args:
        args: command-line arguments; None takes those of the process.
    """
    options = parser().parse_args(args)
    quieten()
    in_float32()
    limit_threads()
    with user_errors():
        file = file_if_named(None if options.json == "-" else options.json)
        # Compilation prints messages, which must not be in an answer that a program reads.
        with contextlib.redirect_stdout(sys.stderr):
            report = examine()
        if options.json == "-":
            print(json.dumps(report, indent=2))
            return _end(report)
        show(report)
        if file:
            write_json(file, report)
    return _end(report)


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    made = OneLineParser(prog="python -m project.doctor", description=DESCRIPTION)
    made.add_argument(
        "--json",
        nargs="?",
        const="-",
        metavar="FILE",
        help="Write the report into a file too; without a name, print it instead.",
    )
    return made


def examine() -> dict[str, Any]:
    """Examines everything, and returns the findings and what is wrong."""
    names = speed.experiments()
    try:
        proofs = kernels.examine([speed.build(name)[0] for name in names])
        with tempfile.TemporaryDirectory() as folder:
            found = [speed.examine(name, Path(folder)) for name in names]
    except DeviceLostError as error:
        proofs, found = [], [{"name": "a device", "wrong": str(error)}]
    wrong = [
        f"{one['name']}{f' on {place}' if (place := one.get('device')) else ''}: {one['wrong']}"
        for one in (*proofs, *found)
        if one["wrong"]
    ]
    return {"machine": surroundings(), "kernels": proofs, "experiments": found, "wrong": wrong}


def show(report: dict[str, Any]) -> None:
    """Prints a report as tables."""
    console = Console()
    machine = Table(title="machine", show_header=False, title_justify="left")
    for name, value in report["machine"].items():
        text = ", ".join(value) if isinstance(value, list) else value
        machine.add_row(name, "none" if text in (None, "") else str(text))
    proofs = Table("kernel", "device", "largest error", "allowed", "verdict", title="proofs")
    for one in report["kernels"]:
        largest = max(one["errors"].values(), default=None)
        proofs.add_row(
            one["name"],
            one["device"],
            "-" if largest is None else f"{largest:.1e}",
            f"{one['bound']:.0e}",
            one["wrong"] or "right",
        )
    experiments = Table("experiment", "device", "learner", "ms an iteration", title="experiments")
    for one in report["experiments"]:
        learner = one["wrong"] or describe_learner(one["learner"], one["why_not_faster"])
        time = f"{one['ms_per_iteration']:.3g}" if "ms_per_iteration" in one else "-"
        experiments.add_row(one["name"], one.get("device", "-"), learner, time)
    for table in (machine, proofs, experiments):
        console.print(table)


def _end(report: dict[str, Any]) -> None:
    for wrong in report["wrong"]:
        print(f"wrong: {wrong}", file=sys.stderr)
    if report["wrong"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
