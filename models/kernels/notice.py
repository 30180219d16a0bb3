"""A notice about operations that take long."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SECONDS = 1.5
"""Delay before the notice."""


@contextmanager
def notice_if_slow(message: str) -> Iterator[None]:
    """Prints `message` on standard error if the body of the context takes longer than `SECONDS`.

    Standard output is left to results, such as the digits of `project.predict`.
    """
    notice = threading.Timer(SECONDS, lambda: print(message, file=sys.stderr, flush=True))
    notice.start()
    try:
        yield
    finally:
        notice.cancel()
