"""Atomic writing of files, for callbacks and programs."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """Opens a file that takes the place of `path` when the `with` block ends without an exception.

    Until then the content is in a temporary file beside `path`, `.NAME.XXXXXXXX.tmp`, and `path`
    itself is unchanged. Symbolic links are followed; anything but a regular file, such as
    /dev/stdout, is written to directly.

    Args:
        path: file to write; missing parent folders are created.

    Yields:
        The open binary file.

    Raises:
        OSError: the file cannot be written, such as on a full disk; the error names `path`.
    """
    try:
        if path.exists() and not path.is_file():
            with path.open("wb") as file:
                yield file
            return
        target = Path(os.path.realpath(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
        try:
            with temporary.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            # Closed by now: Windows does not rename an open file.
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_text(path: Path, text: str) -> None:
    """Writes text in UTF-8, atomically.

    Characters that UTF-8 cannot encode, which file names may contain, are written as escapes.
    """
    with written_whole(path) as file:
        file.write(text.encode(errors="backslashreplace"))


def write_rows(path: Path, record: dict[str, Any]) -> None:
    """Writes a record as JSON with its list "rows" last, one row per line."""
    head = json.dumps({name: value for name, value in record.items() if name != "rows"}, indent=2)
    rows = ",\n".join(map(json.dumps, record["rows"]))
    write_text(path, head.removesuffix("\n}") + f',\n  "rows": [\n{rows}\n  ]\n}}\n')


def write_json(path: Path, record: dict[str, Any]) -> None:
    """Writes a record as JSON, atomically."""
    write_text(path, json.dumps(record, indent=2) + "\n")
