"""Trained networks whose class probabilities are the training targets of another network.

Distillation: Hinton, Vinyals and Dean 2015; here the teachers see the same distorted inputs as
their pupil (Beyer et al. 2022).
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
    """No teachers are found, or they do not fit the pupil."""


class Teachers:
    """An ensemble of trained LeNet-5s.

    Args:
        pattern: glob pattern of checkpoints, or of folders of runs, each of which contributes its
            last checkpoint.
        same: hyperparameters that must equal the pupil's, with their values.

    Raises:
        TeachersError: no checkpoint is found, or one does not hold such a network.
    """

    def __init__(self, pattern: str, same: dict[str, Any]) -> None:
        self._nets = [_net(path, content, same) for path, content in _checkpoints(pattern)]
        if not self._nets:
            raise TeachersError(
                f"no checkpoint at teachers {pattern!r}; train some with project.fit, and give the "
                "folders of their runs"
            )
        # Kept, since a CUDA graph goes on reading their memory.
        self._copies: dict[tuple[torch.device, torch.dtype], list[nets.LeNet5]] = {}

    def __len__(self) -> int:
        return len(self._nets)

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """The mean probabilities (B, classes) of all teachers for inputs x (B, 1, H, W)."""
        place = x.device, x.dtype
        if place not in self._copies:
            self._copies[place] = [copy.deepcopy(net).to(*place) for net in self._nets]
        return torch.stack([net(x).softmax(1) for net in self._copies[place]]).mean(0)


def _checkpoints(pattern: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yields the checkpoint with the most iterations of each folder, in sorted order."""
    folders: dict[Path, list[Path]] = {}
    paths = Path(pattern).expanduser()
    # Path.glob takes relative patterns only.
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
    # The initial weights are overwritten, and must not advance the generator that others use.
    with torch.random.fork_rng(devices=[]):
        net = nets.LeNet5(settings["c3"], classes=settings["classes"])
    net.load_state_dict({name.removeprefix("net."): weights[name] for name in weights})
    return net.requires_grad_(False).eval()
