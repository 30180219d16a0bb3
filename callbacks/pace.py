"""How far something long is, and about how long it will still take."""

from __future__ import annotations

import sys
import time

FIRST, EVERY = 10.0, 60.0
"""Seconds to the first line, and from one to the next."""


class Pace:
    """The speed since it was made, and lines that say so, for logs where no bar moves.

    Args:
        done: share of all, from 0 to 1, that lay behind already.
    """

    def __init__(self, done: float = 0.0) -> None:
        self._before = done
        self._begun = time.perf_counter()
        self._due = self._begun + FIRST

    def left(self, done: float) -> str | None:
        """What is left at the speed so far, as 1:05; None where there is no speed yet.

        Args:
            done: share of all that lies behind, from 0 to 1.
        """
        taken = done - self._before
        return _clock(self._passed() * max(0, 1 - done) / taken) if taken > 0 else None

    def is_due(self) -> bool:
        """Whether it is time for a line: after ten seconds, then a minute behind the last one."""
        return time.perf_counter() >= self._due

    def say(self, what: str, done: float | None) -> None:
        """Writes a line to standard error.

        Args:
            what: is done, and how much of it.
            done: share of all that lies behind, from 0 to 1; None where nobody knows the end.
        """
        left = None if done is None else self.left(done)
        end = "" if left is None else f", about {left} left"
        print(f"{what}: {_clock(self._passed())} since its start{end}", file=sys.stderr, flush=True)
        self._due = time.perf_counter() + EVERY

    def _passed(self) -> float:
        return time.perf_counter() - self._begun


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
