"""Progress and estimated remaining time of a long computation."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import suppress

FIRST, EVERY = 10.0, 60.0
"""Seconds before the first line, and at most between two lines."""


class Pace:
    """Measures the speed since its creation and prints progress lines, for logs without a bar.

    Args:
        done: shares of the work, from 0 to 1, that are done already, one for each limit that may
            end it, such as a number of iterations and a time.
    """

    def __init__(self, done: Sequence[float] = (0.0,)) -> None:
        self._before = done
        self._begun = time.perf_counter()
        self._due = self._begun + FIRST

    def left(self, done: Sequence[float]) -> str | None:
        """Returns the remaining time at the speed so far, such as 1:05; None if there is none yet.

        Args:
            done: shares of the work that are done, from 0 to 1; the first limit ends it.
        """
        passed, shares = self._passed(), zip(self._before, done, strict=False)
        lefts = [passed * max(0, 1 - now) / (now - then) for then, now in shares if now > then]
        return _clock(min(lefts)) if lefts else None

    def is_due(self) -> bool:
        """Whether a line is due: after ten seconds, twice as many, and so on, then every minute."""
        return time.perf_counter() >= self._due

    def say(self, what: str, done: Sequence[float]) -> None:
        """Prints a progress line on standard error.

        Args:
            what: description of what is done so far.
            done: shares of the work that are done, from 0 to 1; empty if the end is unknown.
        """
        left = self.left(done)
        end = "" if left is None else f", about {left} left"
        with suppress(OSError):  # The work goes on if the log is full, or closed.
            print(f"{what}: {_clock(self._passed())} passed{end}", file=sys.stderr, flush=True)
        self._due = time.perf_counter() + min(EVERY, self._passed())

    def _passed(self) -> float:
        return time.perf_counter() - self._begun


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
