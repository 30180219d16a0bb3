"""Shows the progress of a program of many steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from callbacks.pace import Pace


@contextmanager
def shown(total: float) -> Iterator[Callable[[str, float], None]]:
    """Shows a bar in a terminal, a line per minute elsewhere, both on standard error.

    Args:
        total: amount of work, in any unit.

    Yields:
        A function to call with the name of the current step and the amount of work done.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        pace = Pace()

        def say(what: str, done: float) -> None:
            if pace.is_due():
                pace.say(what, [done / total])

        yield say
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("done, left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda what, done: bar.update(task, description=what, completed=done)
