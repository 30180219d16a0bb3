"""The content of `--help`: the experiment's options on one screen, all others by section."""

from __future__ import annotations

import argparse
import re
from typing import NamedTuple

from jsonargparse import DefaultHelpFormatter

from project.unused import is_below

WIDTH = 100
SECTIONS = ("model", "data", "trainer")
# The most common options of Lightning's Trainer.
COMMON = ("max_epochs", "max_steps", "accelerator", "devices", "callbacks")
# Options that a checkpoint determines.
OF_THE_RUN = ("model", "experiment", "seed_everything", "trainer.callbacks")


class View(NamedTuple):
    """The options that --help shows."""

    section: str | None = None
    """One of `SECTIONS`, to show completely; None shows the overview."""
    unused: tuple[str, ...] = ()
    """Options, or sections of options, that have no effect in the program."""

    def shows(self, option: str) -> bool:
        """Whether an option is shown."""
        section, _, name = option.partition(".")
        if option in SECTIONS or option.endswith(".help") or is_below(option, self.unused):
            return False
        if self.section:
            return section == self.section
        if section == "trainer" and name not in COMMON:
            return False
        return not self.unused or not is_below(option, OF_THE_RUN)


def chosen_view(options: list[str], unused: tuple[str, ...]) -> tuple[View, list[str]]:
    """Removes the name of a section after --help from a command line; returns view and rest."""
    for place, word in enumerate(options[1:], 1):
        if word in SECTIONS and options[place - 1] in ("-h", "--help"):
            return View(word, unused), options[:place] + options[place + 1 :]
    return View(None, unused), options


class Formatter(DefaultHelpFormatter):
    """Shows the effect and the default of each option."""

    def __init__(self, prog: str, **options: object) -> None:
        options = {"max_help_position": 32, "width": WIDTH, **options}
        super().__init__(prog, **options)  # type: ignore[no-untyped-call]

    def _get_help_string(self, action: argparse.Action) -> str:
        text = super()._get_help_string(action)
        # Types, and the classes of whole libraries; the default is shown at the end anyway.
        for noise in (
            r" *Default: (``[^`]*``|1)\.",
            r", known subclasses: [^)]*",
            r"(required, )?type: %\(type\)s(, )?",
            r" ?\(default: null\)",
            r":\w+:(?=`)|(?<=`)~?lightning[\w.]*\.(?=\w+`)",
            r"`{1,2}",
            r" \((required)?,? ?\)$",
        ):
            text = re.sub(noise, "", text)
        return text

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith("examples:"):
            return text
        return super()._fill_text(text, width, indent)
