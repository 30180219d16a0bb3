"""Makes standard input, output and error usable, however a program is started."""

from __future__ import annotations

import io
import os
import sys


def settle() -> None:
    """Connects closed streams to the null device, and escapes what open ones cannot encode.

    A service or pythonw starts a program without streams. A file that it opens would then get a
    stream's number, and what a library prints. A character that the encoding of a console lacks,
    such as in the name of a file, is written as an escape.
    """
    while (free := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(free, True)
    os.close(free)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123
        elif isinstance(stream, io.TextIOWrapper):  # not a notebook's
            stream.reconfigure(errors="backslashreplace")
