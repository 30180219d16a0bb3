"""Draws figures in one style, so that a failed figure does not end the program."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from project.errors import warn


def default_style() -> AbstractContextManager[None]:
    """Returns a context of Matplotlib's defaults; a user's style may need LaTeX or fonts."""
    # Takes half a second to import, and many programs draw nothing.
    from matplotlib import style

    return style.context("default")


@contextmanager
def optional(what: str) -> Iterator[None]:
    """Turns an error while drawing an optional figure into a warning on standard error."""
    try:
        yield
    except Exception as error:
        warn(f"{what} could not be drawn ({type(error).__name__}: {error})")
