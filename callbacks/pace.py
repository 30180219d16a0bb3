"""Progress and estimated remaining time of a long computation."""

from __future__ import annotations

import sys
import time

FIRST, EVERY = 10.0, 60.0
"""Seconds before the first line, and at most between two lines."""


class Pace:
    """Measures the speed since its creation and prints progress lines, for logs without a bar.

    Args:
        done: share of the work, from 0 to 1, that is done already.
    """

    def __init__(self, done: float = 0.0) -> None:
        self._before = done
        self._begun = time.perf_counter()
        self._due = self._begun + FIRST

    def left(self, done: float) -> str | None:
        """Returns the remaining time at the speed so far, such as 1:05; None if there is none yet.

        Args:
            done: share of the work that is done, from 0 to 1.
        """
        taken = done - self._before
        return _clock(self._passed() * max(0, 1 - done) / taken) if taken > 0 else None

    def is_due(self) -> bool:
        """Whether a line is due: after ten seconds, twice as many, and so on, then every minute."""
        return time.perf_counter() >= self._due

    def say(self, what: str, done: float | None) -> None:
        """Prints a progress line on standard error.

        Args:
            what: description of what is done so far.
            done: share of the work that is done, from 0 to 1; None if the end is unknown.
        """
        left = None if done is None else self.left(done)
        end = "" if left is None else f", about {left} left"
        print(f"{what}: {_clock(self._passed())} passed{end}", file=sys.stderr, flush=True)
        self._due = time.perf_counter() + min(EVERY, self._passed())

    def _passed(self) -> float:
        return time.perf_counter() - self._begun


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
