"""Expands paths as users write them."""

from __future__ import annotations

import os
from pathlib import Path


def expanded(path: str | Path) -> Path:
    """Expands `~` and variables in a path, unless exactly that path exists.

    A shell expands `~` only at the start of a word, and never in a file. Unknown users and
    variables are left as they are.

    Raises:
        FileNotFoundError: the path is empty, as from an unset variable, or has a null character.
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
