"""Which experiments there are, and where their configurations and checkpoints lie."""

from __future__ import annotations

import difflib
import pickle
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from lightning.pytorch import LightningDataModule, LightningModule

from data import FourNineDataModule, MNISTDataModule
from models.lenet import LeNet5
from models.linear import Linear
from models.tuned import TunedLeNet5
from project.errors import UserError

CONFIGS = Path(__file__).parent / "configs"
DEFAULT_CONFIG = "lenet5-original"
RUNS = Path("runs")

# What the key `experiment` of a configuration may say.
EXPERIMENTS: dict[str, tuple[type[LightningModule], type[LightningDataModule]]] = {
    "lenet5": (LeNet5, MNISTDataModule),
    "lenet5-tuned": (TunedLeNet5, MNISTDataModule),
    "four-nine": (Linear, FourNineDataModule),
}


class Config(NamedTuple):
    """A configuration, as far as it decides which options there are."""

    source: str
    """Its path or its text: what the parser takes."""
    experiment: str
    """A key of `EXPERIMENTS`."""
    name: str
    """Of the folder below `RUNS`."""


class Checkpoint(NamedTuple):
    """What a run can start from."""

    path: Path
    state_dict: dict[str, Any]
    """The weights."""
    config: Config | None
    """Of the run that wrote it, overrides included; None for a checkpoint from elsewhere."""


def find_config(name: str) -> Config:
    """The configuration of that name in project/configs, or at that path."""
    known = {path.stem: path for path in sorted(CONFIGS.glob("*.yaml"))}
    path = known.get(name, Path(name))
    if not path.is_file():
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}."
        raise UserError(f"no configuration {name!r}; {hint} A path of a YAML file works too.")
    return _read_config(str(path), path.read_text(encoding="utf-8"), path)


def _read_config(source: str, text: str, path: Path) -> Config:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML: {error}") from error
    if not isinstance(content, dict) or content.get("experiment") not in EXPERIMENTS:
        known = " or ".join(EXPERIMENTS)
        raise UserError(f"{path} must have a line `experiment:` that says {known}.")
    return Config(source, content["experiment"], content.get("name") or path.stem)


def find_last_checkpoint(name: str) -> Path:
    """The checkpoint written last by any run of that name."""
    found = list((RUNS / name).glob("version_*/checkpoints/*.ckpt"))
    if not found:
        raise UserError(
            f"there is no checkpoint to continue below {RUNS / name}; "
            "leave out --ckpt_path to start a new run."
        )
    return max(found, key=lambda path: path.stat().st_mtime_ns)


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint onto the CPU; none of its code runs."""
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, ValueError, KeyError) as error:
        raise UserError(f"{path} is not a checkpoint, or is damaged.") from error
    if not isinstance(content, dict) or "state_dict" not in content:
        raise UserError(f"{path} is not a checkpoint of a LightningModule.")
    text = content.get("config")
    config = None if text is None else _read_config(text, text, path)
    return Checkpoint(path, content["state_dict"], config)
