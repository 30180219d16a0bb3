"""How far a program of many steps is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from callbacks.pace import Pace


@contextmanager
def shown(total: float) -> Iterator[Callable[[str, float], None]]:
    """A bar in a terminal, a line a minute elsewhere, both on standard error.

    Args:
        total: of what is done, in any unit.

    Yields:
        What to call with the name of what is being done, and how much of `total` lies behind.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        pace = Pace()

        def say(what: str, done: float) -> None:
            if pace.is_due():
                pace.say(what, done / total)

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
