"""Paths as people write them."""

from __future__ import annotations

import os
from pathlib import Path


def expanded(path: str | Path) -> Path:
    """The path with `~` and variables put in, unless there is one of exactly that name.

    A shell does so only where a word begins, and for what stands in a file nobody does. What is not
    known stays as it is.

    Raises:
        FileNotFoundError: the path is empty, as of a variable that is not set, or nothing can be
            called so.
    """
    if not str(path):
        raise FileNotFoundError("a path is empty; name a file or a folder")
    if "\0" in str(path):
        raise FileNotFoundError(f"no file or folder can be called {str(path)!r}")
    as_written = Path(path)
    if as_written.exists():
        return as_written
    # Path.expanduser raises an error for a user that is not known.
    return Path(os.path.expanduser(os.path.expandvars(as_written)))  # noqa: PTH111
