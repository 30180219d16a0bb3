"""Nobody waits without knowing for what."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SECONDS = 1.5
"""After which one begins to wonder."""


@contextmanager
def notice_if_slow(message: str) -> Iterator[None]:
    """Prints `message` on standard error if what is inside takes longer than `SECONDS`.

    Answers, such as the digits of `project.predict`, stay alone on standard output.
    """
    notice = threading.Timer(SECONDS, lambda: print(message, file=sys.stderr, flush=True))
    notice.start()
    try:
        yield
    finally:
        notice.cancel()
