"""`python -m project.reproduce`: every claim of the document, published beside measured."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from datetime import date
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from project import processes
from project.errors import OneLineParser, UserError, user_errors
from project.reproduce import report, runner
from project.reproduce.parts import PARTS, PROBLEMS, Part
from project.reproduce.ranks import from_first, joined
from project.reproduce.record import Erratum, Row
from project.reproduce.sections import ERRATA, Section, sections
from project.threads import limit_threads

REPORTS = Path("reports")

DESCRIPTION = """Runs the claims of the source document and writes report.md and report.html. A part
that is finished is not run again."""


def main(args: list[str] | None = None) -> None:
    """Runs the program.

    Args:
        args: command-line arguments; None takes those of the process.
    """
    parser = _parser()
    given = parser.parse_args(args)
    # A connection for each stream of `side_by_side`, since streams that share one wait for each
    # other. CUDA reads the variable when it starts.
    os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "32")
    parts = _chosen([*given.parts, *given.only])
    named = bool(given.parts or given.only)
    with user_errors(), joined() as rank:
        folder = _folder(REPORTS / date.today().isoformat() if given.out is None else given.out)
        published = None if given.publish is None else _folder(given.publish)
        options = runner.Options(
            folder, given.root, given.runs, given.seed, given.quick, given.force, named
        )
        try:
            if missing := from_first(runner.due(parts, options)):
                check(missing)
                limit_threads()
                runner.run(missing, options, rank)
        except KeyboardInterrupt:
            print("Stopped; the same command goes on behind what is finished.", file=sys.stderr)
            raise SystemExit(130) from None
        if rank > 0:
            return
        report.write(folder)
        if published:
            report.publish(folder, published)
    found = sections(folder)
    _print([section for section in found if section.part in parts])
    print(f"report: {folder / 'report.html'} and {folder / 'report.md'}")


def check(parts: list[Part]) -> None:
    """Refuses several ranks for parts that are not shared: a Trainer would wait for the others.

    Raises:
        UserError: there are several ranks, and a part that they do not share.
    """
    alone = [part.name for part in parts if not part.is_shared]
    if alone and (processes.ranks() or 1) > 1:
        shared = ", ".join(part.name for part in PARTS if part.is_shared)
        raise UserError(f"ranks share {shared} only; run {', '.join(alone)} without torchrun.")


def _parser() -> argparse.ArgumentParser:
    names = ", ".join(f"{part.name} ({part.problem})" for part in PARTS)
    parser = OneLineParser(prog="python -m project.reproduce", description=DESCRIPTION)
    add = parser.add_argument
    add("parts", nargs="*", type=_part, metavar="PART", help=f"only these (problems): {names}")
    add("--only", nargs="+", type=_part, metavar="PART", default=[], help="the same")
    add(
        "--runs",
        type=partial(_number, 1),
        help="seeds (default: each part's own)",
    )
    add("--seed", type=partial(_number, 0), default=0, help="the first seed (default: 0)")
    add("--quick", action="store_true", help="few runs and short trainings: a minute")
    add("--force", action="store_true", help="run finished parts again")
    add("--root", help="folder that holds MNIST/raw (default: MNIST_ROOT)")
    add("--out", metavar="FOLDER", help="of the report (default: reports/DATE)")
    add("--publish", metavar="FOLDER", help="write results.md and results/ there too")
    return parser


def _part(text: str) -> str:
    known = {part.name for part in PARTS} | {str(problem) for problem in PROBLEMS}
    if text not in known:
        names = ", ".join(part.name for part in PARTS)
        raise argparse.ArgumentTypeError(f"there is no part {text!r}; there are {names}")
    return text


def _number(lowest: int, text: str) -> int:
    if not text.isdecimal() or int(text) < lowest:
        raise argparse.ArgumentTypeError(f"must be {lowest} or more, got {text}")
    return int(text)


def _chosen(names: list[str]) -> list[Part]:
    """Returns the parts with these names or problem numbers; all if none is given."""
    return [p for p in PARTS if not names or p.name in names or str(p.problem) in names]


def _print(found: list[Section]) -> None:
    console = Console()
    for section in found:
        outcome = section.finished.outcome
        title = f"{section.heading}: {outcome.verdict}"
        console.print(_table(title, Row._fields, outcome.rows))
        if outcome.errata:
            console.print(_table(ERRATA, Erratum._fields, outcome.errata))


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(*columns, title=title, title_justify="left", show_lines=True)
    for row in rows:
        # As plain text: rich would take X[i, j] for markup.
        table.add_row(*map(Text, row))
    return table


def _folder(name: str | Path) -> Path:
    from project.output import folder_to_fill  # which loads torch

    return folder_to_fill(name)


if __name__ == "__main__":
    main()
