"""Standard input, output and error: there, whoever starts a program, and never in the way."""

from __future__ import annotations

import io
import os
import sys


def settle() -> None:
    """Makes closed streams lead nowhere, and lets open ones write what they have no letters for.

    A service and pythonw start a program without streams. A file that it opens would then get their
    numbers, and what a library prints. A letter that the encoding of a console does not have, as in
    the name of a file, is written as its number.
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
