"""One clear line and exit code 2 for what the user can mend; a traceback is for our own bugs."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn

# What gloo and NCCL say where a connection to another rank breaks off, or is never made, and where
# that rank is waited for in vain.
LOST = (
    "Connection closed by peer",
    "Connection reset by peer",
    "connectFullMesh failed",
    "Timed out waiting",
    "Application timeout caused pair closure",
    "Watchdog caught collective operation timeout",
    "NCCL communicator was aborted",
    "NCCL error",
)


class UserError(Exception):
    """The input or the environment is wrong; the message says what to do about it."""


def fail(message: object) -> NoReturn:
    """Prints one line on standard error and exits with code 2."""
    _say("error:", message)
    raise SystemExit(2)


def fail_in_part(messages: Iterable[object]) -> NoReturn:
    """Prints a line on standard error for what could not be done, and exits with code 1."""
    for message in messages:
        _say("error:", message)
    raise SystemExit(1)


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


def stopped() -> NoReturn:
    """Prints one line on standard error and exits with the shell's code of Ctrl-C."""
    print("Stopped before the end.", file=sys.stderr)
    raise SystemExit(130) from None


def on_uncaught(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Python's excepthook of the programs, for Ctrl-C while they are being imported, too."""
    if issubclass(kind, KeyboardInterrupt):
        stopped()
    sys.__excepthook__(kind, error, trace)


@contextmanager
def user_errors(*more: type[Exception]) -> Iterator[None]:
    """Turns the exceptions that a user can mend, and `more` of them, into `fail`.

    Ctrl-C becomes `stopped`.
    """
    try:
        yield
    except KeyboardInterrupt:
        stopped()
    except SystemExit as end:
        # What Lightning makes of it.
        if end.code == 1 and isinstance(end.__context__, KeyboardInterrupt):
            stopped()
        raise
    except Exception as error:
        if isinstance(error, (*_mendable(), *more)) or _is_refusal(error):
            fail(str(error) or f"{type(error).__name__} in {_innermost(error).f_code.co_qualname}")
        if isinstance(error, UnicodeEncodeError):
            fail(
                f"{error.object!r} cannot be written in {error.encoding}; choose another name, or "
                "set PYTHONUTF8=1."
            )
        if isinstance(error, RuntimeError) and any(text in str(error) for text in LOST):
            fail("another rank has ended; what it printed says why.")
        if isinstance(error, _unreachable()):
            fail(f"the ranks cannot reach each other: {str(error).splitlines()[0]}")
        raise


@contextmanager
def content_of(path: Path, kind: str) -> Iterator[None]:
    """Turns whatever else than a `UserError` the content of a file leads to into one.

    What somebody has written into a file may lead anywhere.

    Args:
        path: of the file.
        kind: what it should be, without an article.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path} is no {kind} ({error!r}).") from error


def file_content(path: Path) -> bytes:
    """The bytes of a file that a user named.

    Raises:
        UserError: something else lies there; a pipe would let the program wait for a writer.
        OSError: nothing does, or it cannot be read.
    """
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is a folder, a pipe or a device; name a file.")
    return path.read_bytes()


def _mendable() -> tuple[type[Exception], ...]:
    # Only after an error: Lightning takes seconds to import, and not every program needs it.
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    from data import DatasetError
    from models.kernels.trust import DeviceLostError

    return (UserError, DatasetError, DeviceLostError, MisconfigurationException, OSError)


def _is_refusal(error: Exception) -> bool:
    """Whether Lightning itself says that it cannot do what it was asked for, or lacks a package.

    What torch or a model raises below it is none of the user's doing.
    """
    if not isinstance(error, (ValueError, TypeError, RuntimeError, ImportError)):
        return False
    return str(_innermost(error).f_globals.get("__name__")).startswith("lightning.")


def _innermost(error: Exception) -> FrameType:
    """Where it was raised."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame


def _unreachable() -> tuple[type[Exception], ...]:
    import torch.distributed as dist

    return (dist.DistNetworkError, dist.DistStoreError)
