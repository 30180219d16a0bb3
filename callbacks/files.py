"""Files that are whole or not there, for callbacks and programs."""

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
    """Opens a file for writing that gets its name when the block ends, and only if that went well.

    Until then the file lies beside `path` under a name of its own, `.NAME.XXXXXXXX.tmp`, and
    whatever `path` was stays as it is. A symbolic link is followed; what is no file, such as
    /dev/stdout, is written to directly.

    Args:
        path: of the file; folders above it are made.

    Yields:
        The open binary file.

    Raises:
        OSError: naming `path`, such as for a full disk.
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
    """Writes a text in UTF-8, whole or not at all.

    The bytes of a file's name need not be UTF-8: what is none is written as its number.
    """
    with written_whole(path) as file:
        file.write(text.encode(errors="backslashreplace"))


def write_rows(path: Path, record: dict[str, Any]) -> None:
    """Writes a record whose last entry, "rows", is a list; each row has a line to itself."""
    head = json.dumps({name: value for name, value in record.items() if name != "rows"}, indent=2)
    rows = ",\n".join(map(json.dumps, record["rows"]))
    write_text(path, head.removesuffix("\n}") + f',\n  "rows": [\n{rows}\n  ]\n}}\n')


def write_json(path: Path, record: dict[str, Any]) -> None:
    """Writes a record, whole or not at all."""
    write_text(path, json.dumps(record, indent=2) + "\n")
