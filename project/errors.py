"""Reports errors that the user can fix in one line, with exit code 2; bugs keep a traceback."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn

# Messages of gloo and NCCL when a connection to another rank is lost or never made, or that rank
# does not answer in time.
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
    """Prints a line on standard error for each failure, and exits with code 1."""
    for message in messages:
        _say("error:", message)
    raise SystemExit(1)


def warn(message: object) -> None:
    """Prints a warning of one line on standard error."""
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
    """The excepthook of the programs, which handles Ctrl-C during their imports, too."""
    if issubclass(kind, KeyboardInterrupt):
        stopped()
    sys.__excepthook__(kind, error, trace)


@contextmanager
def user_errors(*more: type[Exception]) -> Iterator[None]:
    """Turns the exceptions that a user can fix, and those in `more`, into `fail`.

    Ctrl-C becomes `stopped`.
    """
    try:
        yield
    except KeyboardInterrupt:
        stopped()
    except SystemExit as end:
        # Lightning turns Ctrl-C into this exit.
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
    """Turns any exception that the content of a file causes into a `UserError`.

    A file written by a user may cause any exception.

    Args:
        path: path of the file.
        kind: what the file should be, without an article.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path} is no {kind} ({error!r}).") from error


def file_content(path: Path) -> bytes:
    """Returns the bytes of a file that a user named.

    Raises:
        UserError: it is not a regular file; a pipe would make the program wait for a writer.
        OSError: it does not exist or cannot be read.
    """
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is a folder, a pipe or a device; name a file.")
    return path.read_bytes()


def _mendable() -> tuple[type[Exception], ...]:
    # Imported after an error only: Lightning takes seconds, and not every program needs it.
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    from data import DatasetError
    from models.kernels.trust import DeviceLostError

    return (UserError, DatasetError, DeviceLostError, MisconfigurationException, OSError)


def _is_refusal(error: Exception) -> bool:
    """Whether Lightning itself raised the error, because of the options or a missing package.

    An error that torch or a model raises below it is not the user's.
    """
    if not isinstance(error, (ValueError, TypeError, RuntimeError, ImportError)):
        return False
    return str(_innermost(error).f_globals.get("__name__")).startswith("lightning.")


def _innermost(error: Exception) -> FrameType:
    """Returns the frame in which the error was raised."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame


def _unreachable() -> tuple[type[Exception], ...]:
    import torch.distributed as dist

    return (dist.DistNetworkError, dist.DistStoreError)
