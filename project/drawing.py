"""How figures are drawn: in one style everywhere, and never at the cost of what they belong to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from project.errors import warn


def default_style() -> AbstractContextManager[None]:
    """Draws as Matplotlib does by itself: a user's matplotlibrc may ask for LaTeX or fonts."""
    # Half a second to import, and many a program draws nothing.
    from matplotlib import style

    return style.context("default")


@contextmanager
def optional(what: str) -> Iterator[None]:
    """Draws what is not needed: where that fails, one line on standard error says so."""
    try:
        yield
    except Exception as error:
        warn(f"{what} could not be drawn ({type(error).__name__}: {error})")
