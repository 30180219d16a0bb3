"""Nobody waits without knowing for what."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def notice_if_slow(message: str, seconds: float = 1.5) -> Iterator[None]:
    """Prints `message` if what is inside takes longer than `seconds`."""
    notice = threading.Timer(seconds, print, [message], {"flush": True})
    notice.start()
    try:
        yield
    finally:
        notice.cancel()
