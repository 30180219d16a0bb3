"""The options of an experiment: their help, a commented configuration, and answers to typos."""

from __future__ import annotations

import argparse
import difflib
import re
import textwrap
from collections.abc import Iterator
from typing import Any, NoReturn

from lightning.pytorch.cli import LightningArgumentParser

from project.errors import fail
from project.help import SECTIONS, WIDTH, Formatter, View
from project.wording import in_plain_words

# Messages of jsonargparse about unknown options.
UNKNOWN = re.compile(
    r"unrecognized arguments: --(?P<key>[\w.-]+)"
    r"|Group '(?P<group>\w+)' does not accept option '(?P<member>[\w.]+)'"
    r"|Option '(?P<option>[\w.]+)' is not accepted"
)
# Names of options in other programs.
ALIASES = {
    "epochs": "trainer.max_epochs",
    "iterations": "trainer.max_steps",
    "steps": "trainer.max_steps",
    "learning_rate": "model.lr",
    "seed": "seed_everything",
    "root": "data.root",
    "checkpoint": "ckpt_path",
    "resume": "ckpt_path",
    "class_path": "model",
}
# Names that are not options, but methods of a user's model.
METHODS = {"optimizer": "configure_optimizers", "lr_scheduler": "configure_optimizers"}
# A word that is not an option.
STRAY = re.compile(r"unrecognized arguments: (?P<word>[^-\s]\S*)$")
# The most important sections of a configuration.
FIRST = ("experiment", "name", "seed_everything", "model", "data")


class Parser(LightningArgumentParser):
    """Answers bad input with one line, and puts the experiment's options before Lightning's.

    Args:
        view: what --help shows.
        args: further arguments of the base class.
        kwargs: further keyword arguments of the base class.
    """

    def __init__(self, *args: Any, view: View | None = None, **kwargs: Any) -> None:
        self.view = view or View()
        super().__init__(*args, formatter_class=Formatter, allow_abbrev=False, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Exits with code 2, or raises if `exit_on_error` is false."""
        if not self.exit_on_error:
            super().error(message, ex)
        message = in_plain_words(message)
        fail(message + self._hint(message))

    def _hint(self, message: str) -> str:
        """Suggests the option that may have been meant."""
        if found := STRAY.search(message):
            return f"; did you mean --config {found['word']}?"
        if (found := UNKNOWN.search(message)) is None:
            return ""
        group, member = found["group"], found["member"]
        dashes = "--" if found["key"] else ""
        key = f"{group}.{member}" if group else found["key"] or found["option"]
        key, options = key.replace("-", "_"), self._options()
        if method := METHODS.get(key.split(".")[0]):
            return f"; it is what {method} of a model says: docs/make-it-yours.md."
        # "lr" means "model.lr", whatever else is similar.
        names = [ALIASES.get(key.split(".")[-1], key), key.split(".")[-1]]
        ends = [name for name in names if name in options]
        ends += [option for option in options if option.split(".")[-1] == key]
        ends += [option for option in options if option.startswith(key)]
        # The section of an unknown option is not what was meant.
        others = [option for option in options if not key.startswith(f"{option}.")]
        near = ends or difflib.get_close_matches(key, others, n=1)
        return f"; did you mean {dashes}{near[0]}?" if near else "; --help lists the options."

    def explain(self, option: str, help_: str) -> None:
        """Replaces the help of an option of the base class."""
        self._option_string_actions[option].help = help_

    def knows(self, option: str) -> bool:
        """Whether there is an option of that name."""
        return option in self._options()

    def _options(self) -> dict[str, str]:
        """Returns the options of a configuration and their help."""
        helps = {
            action.dest: action.help or ""
            for action in self._actions
            if action.option_strings and not action.dest.endswith(".help")
        }
        return helps | {name: f"{group.title}." for name, group in (self.groups or {}).items()}

    def format_help(self, *args: Any, **kwargs: Any) -> str:
        """Formats the help: the experiment's own options first, and few of Lightning's."""
        groups: Any = self._action_groups
        groups.sort(key=lambda group: str(group.title).startswith("Customize"))
        for action in self._actions:
            if not self.view.shows(action.dest) and action.option_strings:
                action.help = argparse.SUPPRESS
        for group in groups:
            if str(group.title).startswith("Linked"):
                group.description = group.title = None
                group._group_actions.clear()
        text: str = super().format_help(*args, **kwargs)
        more = " or ".join(f"--help {section}" for section in SECTIONS)
        return f"{text}\nAll of a section: {more}.\n"

    def dump(self, cfg: Any, **options: Any) -> str:
        """Returns the configuration as YAML, with comments for --print_config."""
        text: str = super().dump(cfg, **options)
        return self._commented(text) if hasattr(self, "print_config") else text

    def _commented(self, text: str) -> str:
        parts = re.split(r"^(?=\w)", text, flags=re.MULTILINE)
        sections = {part.split(":")[0]: part for part in parts if ":" in part}
        names = sorted(sections, key=lambda name: (*FIRST, *sections).index(name))
        return "".join(f"{line}\n" for name in names for line in self._comment(sections[name]))

    def _comment(self, section: str) -> Iterator[str]:
        options, group = self._options(), ""
        for line in section.splitlines():
            if found := re.match(r"(  )?(\w+):", line):
                indent, key = found[1] or "", found[2]
                group = group if indent else key
                help_ = options.get(f"{group}.{key}" if indent else key, "")
                first = re.split(r"(?<=\.)\s+(?=[A-Z])", help_.replace("`", ""))[0]
                margin = f"{indent}# "
                yield from textwrap.wrap(
                    first, WIDTH, initial_indent=margin, subsequent_indent=margin
                )
            yield line
