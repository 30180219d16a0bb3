"""The experiments, and where to find their configurations and checkpoints."""

from __future__ import annotations

import difflib
import os
import sys
import warnings
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import torch
import yaml

from callbacks.checkpoint import SAVED_AT
from callbacks.run_folder import last_version, version_number
from data import FourNineDataModule, MNISTDataModule
from data.paths import expanded
from models.lenet import LeNet5
from models.lenet1998 import LeNet1998
from models.linear import Linear
from project import own
from project.errors import UserError

CONFIGS = Path(__file__).parent / "configs"
DEFAULT_CONFIG = "lenet5-original"
RUNS = Path("runs")
# Most entries of a configuration: nested aliases grow exponentially when they are expanded.
ENTRIES = 10_000

# Keys of a checkpoint from which a training can resume, beside the weights.
STATE = {"loops", "optimizer_states", "lr_schedulers", "callbacks", "pytorch-lightning_version"}
# Keys of `STATE` whose value is never empty.
PARTS = ("loops", "optimizer_states")

# Values of the key `experiment` of a configuration.
EXPERIMENTS: dict[str, own.Experiment] = {
    "lenet5": (LeNet5, MNISTDataModule),
    "lenet5-1998": (LeNet1998, MNISTDataModule),
    "four-nine": (Linear, FourNineDataModule),
}


# Names of experiments in older configurations, and the settings of LeNet5 that they imply.
FORMER: dict[str, dict[str, Any]] = {
    "lenet5-tuned": {
        **{"lr": 0.05, "momentum": 0.9, "nesterov": True, "schedule": "cosine"},
        **{"rotation": 15, "scale": 0.15, "shear": 0.2, "shift": 2},
    }
}


def is_known(experiment: object) -> bool:
    """Whether a configuration may name this experiment."""
    return experiment in [*EXPERIMENTS, *FORMER] or own.is_own(experiment)


class Config(NamedTuple):
    """A configuration, and the parts of it that determine which options there are."""

    text: str
    """YAML in ASCII, passed to the parser as text: it reads files in the locale's encoding."""
    experiment: str
    """A key of `EXPERIMENTS`, or a name to import."""
    name: str
    """Name of the folder below `RUNS`."""
    ckpt_path: str | None = None
    """The checkpoint to start from, as in the option of that name."""


class Checkpoint(NamedTuple):
    """A checkpoint from which a run can start."""

    path: Path
    state_dict: dict[str, Any]
    """The weights."""
    continues: bool
    """Whether a training can resume from it; otherwise it holds weights only."""
    config: Config | None
    """Configuration of the run that wrote it, overrides included; None if it is from elsewhere."""
    saved_at: float
    """Time of saving in seconds since 1970; 0 if an older version wrote the file."""
    iterations: int
    """Optimizer steps taken before it."""


class UniqueKeys(yaml.SafeLoader):
    """Refuses duplicate keys in a mapping, of which the last would silently win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Checks the keys before the base class adds those that `<<` merges."""
        keys = [key.value for key, _ in node.value]
        if twice := next((key for key in keys if keys.count(key) > 1), None):
            raise yaml.YAMLError(f"{twice!r} stands there twice")
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


def find_config(name: str) -> Config:
    """Returns the configuration of that name in project/configs, or at that path."""
    known = {path.stem: path for path in sorted(CONFIGS.glob("*.yaml"))}
    path = known.get(name) or expanded(name)
    if not path.is_file():
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}."
        raise UserError(f"no configuration {name!r}; {hint} A path of a YAML file works too.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not text in UTF-8.") from error
    return _read_config(text, path)


def _read_config(text: object, path: Path) -> Config:
    try:
        content = yaml.load(text, UniqueKeys) if isinstance(text, str) else None
        if _entries(content, {}) > ENTRIES:
            raise UserError(f"{path} repeats itself too often.")
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML: {error}") from error
    except RecursionError as error:
        raise UserError(f"{path} is nested too deeply.") from error
    experiment = content.get("experiment") if isinstance(content, dict) else None
    if not isinstance(content, dict) or not is_known(experiment):
        known = " or ".join(EXPERIMENTS)
        raise UserError(
            f"{path} must have a line `experiment:` that says {known}, or what to import, such as "
            "mine.Net."
        )
    for section in ("model", "data", "trainer"):
        if not isinstance(content.get(section, {}), dict):
            raise UserError(f"{path}: `{section}:` must hold options, got {content[section]!r}.")
    name = check_name(content.get("name") or path.stem)
    if experiment in FORMER:
        content = _renewed(content)
        text = yaml.safe_dump(content)
    ckpt_path = content.get("ckpt_path")
    if not isinstance(ckpt_path, str | None):
        raise UserError(f"{path}: `ckpt_path:` must be a path or last, got {ckpt_path!r}.")
    return Config(_escaped(str(text)), content["experiment"], name, ckpt_path)


def _entries(content: object, known: dict[int, int]) -> int:
    """Counts the entries with aliases expanded; `known` holds counts by identity."""
    if not isinstance(content, dict | list):
        return 1
    if id(content) not in known:
        known[id(content)] = 1  # an alias may refer to itself
        for part in content.values() if isinstance(content, dict) else content:
            known[id(content)] += _entries(part, known)
    return known[id(content)]


def _escaped(text: str) -> str:
    """Returns the same YAML in ASCII, without comments."""
    escaped: str = yaml.emit(yaml.parse(text, Loader=yaml.SafeLoader), allow_unicode=False)
    return escaped


def _renewed(content: dict[str, Any]) -> dict[str, Any]:
    """Translates a configuration of a former experiment into today's experiment and settings."""
    model = FORMER[content["experiment"]] | content.get("model", {})
    return content | {"experiment": "lenet5", "model": model}


def with_model(model: str, config: Config | None) -> Config:
    """Returns a configuration for a model to import; the default's Trainer if none is given."""
    content = yaml.safe_load((config or find_config(DEFAULT_CONFIG)).text)
    if config is None:
        del content["model"], content["data"]
    name = model.rpartition(".")[2] if config is None else config.name
    content |= {"experiment": model, "name": name}
    return Config(yaml.safe_dump(content), model, check_name(name), content.get("ckpt_path"))


def without_callbacks(config: Config) -> Config:
    """Returns a configuration without the Trainer's callbacks, which only a training needs."""
    content = yaml.safe_load(config.text)
    content.get("trainer", {}).pop("callbacks", None)
    return config._replace(text=yaml.safe_dump(content))


def check_name(name: object) -> str:
    """Returns the name of a run if it names a folder directly below `RUNS`.

    Raises:
        UserError: it does not.
        UnicodeEncodeError: the file system cannot encode it.
    """
    if not isinstance(name, str) or name in ("", ".", "..") or Path(name).name != name:
        raise UserError(f"a run's name must be text without slashes, got {name!r}.")
    if "\0" in name:
        raise UserError(f"no folder can be called {name!r}.")
    # Fails now, not after a training, if the name cannot be encoded in UTF-8 or as a path in this
    # locale.
    name.encode()
    os.fsencode(name)
    return name


def last_checkpoint(name: str | None) -> Checkpoint:
    """Returns the newest valid checkpoint of runs of that name, or of all; reports invalid ones.

    Raises:
        UserError: there is none.
    """
    if checkpoint := _newest(_checkpoints(name, "*.ckpt")):
        return checkpoint
    raise UserError(
        f"there is no checkpoint to continue below {_folder(name)}; "
        "leave out --ckpt_path to start a new run."
    )


def best_checkpoint(name: str | None) -> Checkpoint:
    """Returns the newest checkpoint of a best validation in runs of that name, or in all.

    Raises:
        UserError: there is none.
    """
    if checkpoint := _newest(_checkpoints(name, "best-*.ckpt")):
        return checkpoint
    raise UserError(
        f"no run below {_folder(name)} kept a best checkpoint; "
        "--data.val_size N holds images out for validation, by which it is chosen."
    )


def _folder(name: str | None) -> Path:
    return RUNS if name is None else RUNS / name


def _checkpoints(name: str | None, pattern: str) -> Iterable[Path]:
    pattern = f"version_*/checkpoints/{pattern}"
    return _folder(name).glob(pattern if name else f"*/{pattern}")


def unfinished_checkpoint(name: str) -> Checkpoint | None:
    """Returns the newest valid checkpoint of the last run of that name, if it is unfinished."""
    last = last_version(RUNS / name)
    if last is None or (last / "results.json").exists():
        return None
    return _newest(last.glob("checkpoints/*.ckpt"))


def _newest(paths: Iterable[Path]) -> Checkpoint | None:
    """Returns the checkpoint saved last by its content, since copying changes a file's time."""
    newest = None
    for path in sorted(paths):
        try:
            checkpoint = read_checkpoint(path)
        except UserError as error:
            print(f"Left out: {error}", file=sys.stderr)
            continue
        if newest is None or _order(checkpoint) > _order(newest):
            newest = checkpoint
    return newest


def _order(checkpoint: Checkpoint) -> tuple[float, int, int]:
    version = version_number(checkpoint.path.parent.parent)
    return checkpoint.saved_at, version, checkpoint.iterations


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint onto the CPU without executing code from it."""
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch takes a damaged file for a newer one
            content = torch.load(path, map_location="cpu", weights_only=True)
        if zipfile.is_zipfile(path):  # torch does not verify its own checksums
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
            if damaged:
                raise zipfile.BadZipFile(damaged)
    except Exception as error:  # a damaged pickle may raise anything
        raise UserError(f"{path} is not a checkpoint, or is damaged.") from error
    weights = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(content, dict) or not _is_weights(weights):
        raise UserError(f"{path} is not a checkpoint of a LightningModule.")
    text = content.get("config")
    config = None if text is None else _read_config(text, path)
    saved_at, iterations = (_number(content.get(key)) for key in (SAVED_AT, "global_step"))
    continues = content.keys() >= STATE and all(content[key] for key in PARTS)
    return Checkpoint(path, dict(weights), continues, config, saved_at, int(iterations))


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _is_weights(weights: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(weights, dict) and all(isinstance(name, str) for name in weights)
