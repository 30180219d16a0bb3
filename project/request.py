"""Determines configuration, name and checkpoint from a command line."""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

from data.paths import expanded
from project import own
from project.errors import OneLineParser, UserError
from project.experiments import (
    DEFAULT_CONFIG,
    Checkpoint,
    Config,
    best_checkpoint,
    check_name,
    find_config,
    last_checkpoint,
    read_checkpoint,
    unfinished_checkpoint,
    with_model,
    without_callbacks,
)

FOUND = {"last": last_checkpoint, "best": best_checkpoint}
"""Values of --ckpt_path that are not paths."""

ONCE = ("name", "ckpt_path", "model")
"""Options that can be given once, since the last one would silently win."""

FILES = (".yaml", ".yml", ".json")
"""Suffixes of files of options."""


class Request(NamedTuple):
    """The part of a command line that determines which options there are."""

    configs: list[Config]
    """Later ones override earlier ones."""
    name: str
    """Name of the folder below `RUNS`."""
    checkpoint: Checkpoint | None
    """The checkpoint to start from."""
    options: list[str]
    """The rest of the command line."""


def read_request(args: list[str] | None, *, trains: bool = True) -> Request:
    """Extracts the options that determine all others from a command line.

    A checkpoint brings the configuration of its run. With "last" and "best", --config only selects
    a name of runs; without it and --name, runs of any name count.

    Args:
        args: command-line arguments; None takes those of the process.
        trains: whether the callbacks of the run are kept.

    Raises:
        UserError: a configuration or checkpoint is missing or unusable, or an option of `ONCE` is
            given more than once.
    """
    parser = OneLineParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-c", "--config", action="append", default=[])
    for option in ONCE:
        parser.add_argument(f"--{option}", action="append")
    chosen, options = parser.parse_known_args(typed() if args is None else args)
    for option in ONCE:
        setattr(chosen, option, _only(option, getattr(chosen, option)))
    configs = [find_config(name) for name in chosen.config]
    if chosen.model and own.is_own(chosen.model) and not chosen.model.endswith(FILES):
        configs.append(with_model(chosen.model, configs[-1] if configs else None))
    elif chosen.model:
        options.append(f"--model={chosen.model}")
    ckpt_path = chosen.ckpt_path
    if ckpt_path is None:
        said = [config.ckpt_path for config in configs if config.ckpt_path]
        ckpt_path = said[-1] if said else None
    if ckpt_path is None:
        configs = configs or [find_config(DEFAULT_CONFIG)]
    name = chosen.name
    if name is None and configs:
        name = configs[-1].name
    checkpoint = _starting_point(ckpt_path, None if name is None else check_name(name))
    if ckpt_path and checkpoint and checkpoint.config:
        # --config selects what "last" finds; with a path, it overrides the run's configuration.
        of_run = checkpoint.config if trains else without_callbacks(checkpoint.config)
        configs = [of_run, *(configs if chosen.ckpt_path not in FOUND else ())]
    if not configs:
        raise UserError(f"{ckpt_path} holds no configuration; say which with --config.")
    name = configs[-1].name if chosen.name is None else chosen.name
    return Request(configs, check_name(name), checkpoint, options)


def _only(option: str, values: list[str] | None) -> str | None:
    if values and len(values) > 1:
        raise UserError(f"--{option} can be given once, got {' and '.join(values)}.")
    return values[0] if values else None


def _starting_point(path: str | None, name: str | None) -> Checkpoint | None:
    if path in FOUND:
        return FOUND[path](name)
    if path is not None:
        return read_checkpoint(expanded(path))
    # torchrun restarts a job that lost a rank.
    is_restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
    return unfinished_checkpoint(str(name)) if is_restart else None


def typed() -> list[str]:
    """Returns the arguments of the process; during shell completion, the finished words."""
    if "_ARGCOMPLETE" in os.environ:
        return os.environ["COMP_LINE"].split()[3:-1]  # python -m program ... unfinished
    return sys.argv[1:]
