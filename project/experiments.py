"""Which experiments there are, and where their configurations and checkpoints lie."""

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
# Of a configuration: aliases of aliases grow without end when they are written out.
ENTRIES = 10_000

# What a checkpoint holds beside weights if a training can go on from it.
STATE = {"loops", "optimizer_states", "lr_schedulers", "callbacks", "pytorch-lightning_version"}
# Those of them that are never empty.
PARTS = ("loops", "optimizer_states")

# What the key `experiment` of a configuration may say.
EXPERIMENTS: dict[str, own.Experiment] = {
    "lenet5": (LeNet5, MNISTDataModule),
    "lenet5-1998": (LeNet1998, MNISTDataModule),
    "four-nine": (Linear, FourNineDataModule),
}


# What older configurations call their experiment, and what that set of LeNet5.
FORMER: dict[str, dict[str, Any]] = {
    "lenet5-tuned": {
        **{"lr": 0.05, "momentum": 0.9, "nesterov": True, "schedule": "cosine"},
        **{"rotation": 15, "scale": 0.15, "shear": 0.2, "shift": 2},
    }
}


def is_known(experiment: object) -> bool:
    """Whether a configuration may say so."""
    return experiment in [*EXPERIMENTS, *FORMER] or own.is_own(experiment)


class Config(NamedTuple):
    """A configuration, as far as it decides which options there are."""

    text: str
    """YAML in ASCII, which the parser takes for a path: files it reads in the locale's encoding."""
    experiment: str
    """A key of `EXPERIMENTS`, or what to import."""
    name: str
    """Of the folder below `RUNS`."""
    ckpt_path: str | None = None
    """What it says to start from, as the option of that name."""


class Checkpoint(NamedTuple):
    """What a run can start from."""

    path: Path
    state_dict: dict[str, Any]
    """The weights."""
    continues: bool
    """Whether a training can go on from it: else it holds weights only."""
    config: Config | None
    """Of the run that wrote it, overrides included; None for a checkpoint from elsewhere."""
    saved_at: float
    """Seconds since 1970, as the file says; 0 where an older version wrote it."""
    iterations: int
    """Optimizer steps behind it."""


class UniqueKeys(yaml.SafeLoader):
    """Refuses a key that stands twice in a mapping, of which the last would silently win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As the base class, which puts in what `<<` merges."""
        keys = [key.value for key, _ in node.value]
        if twice := next((key for key in keys if keys.count(key) > 1), None):
            raise yaml.YAMLError(f"{twice!r} stands there twice")
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


def find_config(name: str) -> Config:
    """The configuration of that name in project/configs, or at that path."""
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
    """How many entries there are in it, once more for each alias; `known` is by identity."""
    if not isinstance(content, dict | list):
        return 1
    if id(content) not in known:
        known[id(content)] = 1  # of one within itself
        for part in content.values() if isinstance(content, dict) else content:
            known[id(content)] += _entries(part, known)
    return known[id(content)]


def _escaped(text: str) -> str:
    """The same YAML without comments, in ASCII."""
    escaped: str = yaml.emit(yaml.parse(text, Loader=yaml.SafeLoader), allow_unicode=False)
    return escaped


def _renewed(content: dict[str, Any]) -> dict[str, Any]:
    """A configuration of an experiment that has become another one with settings of its own."""
    model = FORMER[content["experiment"]] | content.get("model", {})
    return content | {"experiment": "lenet5", "model": model}


def with_model(model: str, config: Config | None) -> Config:
    """A configuration for a model to import; without one, the default's for the training alone."""
    content = yaml.safe_load((config or find_config(DEFAULT_CONFIG)).text)
    if config is None:
        del content["model"], content["data"]
    name = model.rpartition(".")[2] if config is None else config.name
    content |= {"experiment": model, "name": name}
    return Config(yaml.safe_dump(content), model, check_name(name), content.get("ckpt_path"))


def without_callbacks(config: Config) -> Config:
    """A run's configuration without the callbacks of its training, which nothing else needs."""
    content = yaml.safe_load(config.text)
    content.get("trainer", {}).pop("callbacks", None)
    return config._replace(text=yaml.safe_dump(content))


def check_name(name: object) -> str:
    """A name of a run, which is a folder below `RUNS` and nowhere else.

    Raises:
        UserError: it is none.
        UnicodeEncodeError: nothing can be called so here.
    """
    if not isinstance(name, str) or name in ("", ".", "..") or Path(name).name != name:
        raise UserError(f"a run's name must be text without slashes, got {name!r}.")
    if "\0" in name:
        raise UserError(f"no folder can be called {name!r}.")
    # What cannot be written in UTF-8, or as a path in this locale, shows now: behind a training it
    # would be late.
    name.encode()
    os.fsencode(name)
    return name


def last_checkpoint(name: str | None) -> Checkpoint:
    """The newest whole checkpoint of any run of that name, or of any run; tells what it leaves out.

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
    """That of the best validation in the last run of that name, or of any, that validated.

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
    """The newest whole checkpoint of the last run of that name, if that was broken off."""
    last = last_version(RUNS / name)
    if last is None or (last / "results.json").exists():
        return None
    return _newest(last.glob("checkpoints/*.ckpt"))


def _newest(paths: Iterable[Path]) -> Checkpoint | None:
    """The last one that was saved: by what the files say, since copying sets their times anew."""
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
    """Reads a checkpoint onto the CPU; none of its code runs."""
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a damaged file torch thinks it is a newer one
            content = torch.load(path, map_location="cpu", weights_only=True)
        if zipfile.is_zipfile(path):  # torch does not compare the checksums that it writes
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
