"""Nets that are trained already, and say how probable each class is to one that learns from them.

Distillation: Hinton, Vinyals and Dean 2015; here on the very inputs that the pupil sees, distorted
as they are (Beyer et al. 2022).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models import nets


class TeachersError(ValueError):
    """There are none, or not for this pupil."""


class Teachers:
    """A committee of LeNet-5s.

    Args:
        pattern: of paths, as a shell would take it: checkpoints, or folders of runs, of which each
            gives its last checkpoint.
        same: hyperparameters that must be the pupil's, with their values.

    Raises:
        TeachersError: no checkpoint is there, or one is of something else.
    """

    def __init__(self, pattern: str, same: dict[str, Any]) -> None:
        self._nets = [_net(path, content, same) for path, content in _checkpoints(pattern)]
        if not self._nets:
            raise TeachersError(
                f"no checkpoint at teachers {pattern!r}; train some with project.fit, and give the "
                "folders of their runs"
            )
        # A recording goes on reading where they were.
        self._copies: dict[tuple[torch.device, torch.dtype], list[nets.LeNet5]] = {}

    def __len__(self) -> int:
        return len(self._nets)

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """Their mean probabilities (B, classes) for inputs x (B, 1, H, W)."""
        place = x.device, x.dtype
        if place not in self._copies:
            self._copies[place] = [copy.deepcopy(net).to(*place) for net in self._nets]
        return torch.stack([net(x).softmax(1) for net in self._copies[place]]).mean(0)


def _checkpoints(pattern: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """In order, of each folder the one with the most iterations."""
    folders: dict[Path, list[Path]] = {}
    paths = Path(pattern).expanduser()
    # Path takes patterns below a folder only.
    start = Path(paths.anchor)
    for place in sorted(start.glob(str(paths.relative_to(start)))):
        for path in [place] if place.is_file() else sorted(place.rglob("*.ckpt")):
            folders.setdefault(path.parent, []).append(path)
    for those in folders.values():
        read = [(path, _content(path)) for path in those]
        yield max(read, key=lambda one: one[1]["global_step"])


def _content(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if content.keys() >= {"global_step", "hyper_parameters", "state_dict"}:
            return content
    except Exception as error:  # a damaged pickle may raise anything
        raise TeachersError(f"teacher {path} is no checkpoint, or damaged") from error
    raise TeachersError(f"teacher {path} is no checkpoint of a training")


def _net(path: Path, content: dict[str, Any], same: dict[str, Any]) -> nets.LeNet5:
    settings, weights = content["hyper_parameters"], content["state_dict"]
    if "c3" not in settings:
        raise TeachersError(f"teacher {path} is no LeNet-5 of lenet5-original or lenet5-modern")
    for name, value in same.items():
        if settings[name] != value:
            raise TeachersError(
                f"teacher {path} has {name} {settings[name]}, and its pupil {value}; they must be "
                "the same"
            )
    # What it would draw is overwritten, and others may draw later.
    with torch.random.fork_rng(devices=[]):
        net = nets.LeNet5(settings["c3"], classes=settings["classes"])
    net.load_state_dict({name.removeprefix("net."): weights[name] for name in weights})
    return net.requires_grad_(False).eval()
