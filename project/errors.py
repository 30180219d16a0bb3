"""One clear line and exit code 2 for what the user can mend; a traceback is for our own bugs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

# What gloo says where a connection to another rank breaks off.
LOST = ("Connection closed by peer", "Connection reset by peer")


class UserError(Exception):
    """The input or the environment is wrong; the message says what to do about it."""


def fail(message: object) -> NoReturn:
    """Prints one line on standard error and exits with code 2."""
    _say("error:", message)
    raise SystemExit(2)


def warn(message: object) -> None:
    """Prints one line on standard error, of what the program does without."""
    _say("warning:", message)


def _say(kind: str, message: object) -> None:
    print(kind, *str(message).split(), file=sys.stderr)


class OneLineParser(argparse.ArgumentParser):
    """An ArgumentParser that answers bad input with one line."""

    def error(self, message: str) -> NoReturn:
        """Exits with code 2."""
        fail(message)


@contextmanager
def user_errors(*more: type[Exception]) -> Iterator[None]:
    """Turns the exceptions that a user can mend, and `more` of them, into `fail`."""
    try:
        yield
    except Exception as error:
        if isinstance(error, (*_mendable(), *more)):
            fail(error)
        if isinstance(error, RuntimeError) and any(text in str(error) for text in LOST):
            fail("another rank has ended; what it printed says why.")
        raise


def _mendable() -> tuple[type[Exception], ...]:
    # Only after an error: Lightning takes seconds to import, and not every program needs it.
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    from data import DatasetError

    return (UserError, DatasetError, MisconfigurationException, OSError)
