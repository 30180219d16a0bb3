"""Many runs of the linear experiments, each equal to the run of `project.fit` with its seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import yaml
from torch import Tensor

from data import FourNineDataModule
from models.kernels import sgd
from models.kernels.sgd import sequential_sgd
from models.linear import Linear
from models.nets import LinearClassifier
from project.experiments import find_config
from project.reproduce.ranks import gathered, own_gpu, place

SATURATED = 1e-4  # a loss this close to its bounds has practically no slope
AT_ONCE = {"cpu": 20, "cuda": 300}
"""Runs in one call: enough to occupy the device, and their orders fit into memory."""


class Descent(NamedTuple):
    """The outcome of one run."""

    seed: int
    margin: float
    """z before the first iteration, mean over the training images."""
    correct: int
    """Number of test images that are right at the end."""
    last_lesson: int
    """The last iteration that changed anything, since its sigmoid was not saturated."""


class Experiment:
    """One configuration of `project.fit`, to be run with many seeds.

    Args:
        name: name of a configuration of a linear experiment with batch size 1.
        root: folder that holds MNIST/raw.
    """

    def __init__(self, name: str, root: Path) -> None:
        content = yaml.safe_load(find_config(name).text)
        self.data = FourNineDataModule(root=str(root), **content["data"])
        self.data.setup("fit")
        self.data.setup("test")
        model = Linear(**content["model"])
        model.adapt_scale(self.data)  # all training images: the same with every seed
        self.loss = model.loss
        self.rates = model.learning_rates(len(self.data.order()))
        self.device = device_of_runs()
        self._mean_image = self.data.train_images.flatten(1).float().mean(0) * model.net.scale
        data = self.data.train_images, self.data.train_labels, self.data.test_labels
        self._images, self._labels, self._test_labels = (part.to(self.device) for part in data)
        self._scale = model.net.scale.to(self.device)
        self._test_images = self.data.test_images.to(self.device).flatten(1) * self._scale

    @property
    def total(self) -> int:
        """The number of test images."""
        return len(self.data.test_images)

    def run(self, seeds: Sequence[int]) -> list[Descent]:
        """Runs the experiment with these seeds, side by side."""
        nets = [_fresh_net(seed) for seed in seeds]
        weight = torch.cat([net.output.weight.detach() for net in nets])
        bias = torch.cat([net.output.bias.detach() for net in nets])
        # Row by row, since the rounding of a matrix product depends on its size.
        margins = torch.stack([w @ self._mean_image for w in weight]) + bias
        order = torch.stack([self.data.reseeded(seed).order().indices() for seed in seeds])
        weight, bias, order = (part.to(self.device) for part in (weight, bias, order))
        losses = sequential_sgd(
            self._images,
            self._labels,
            order,
            weight,
            bias,
            self.rates,
            self.loss,
            scale=self._scale,
        )
        outputs = torch.stack([self._test_images @ w for w in weight]) + bias[:, None]
        right = outputs * self._test_labels >= 0
        columns = (margins, right.sum(1), _last_lesson(losses))
        found = zip(seeds, *(column.tolist() for column in columns), strict=True)
        return [Descent(*values) for values in found]


def device_of_runs() -> torch.device:
    """Returns where project.fit trains these experiments: a GPU with a right kernel, or the CPU."""
    device = own_gpu()
    if device is not None and sgd.choose("auto", device, torch.float32) == "cuda":
        return device
    return torch.device("cpu")


def _fresh_net(seed: int) -> LinearClassifier:
    # project.fit, too, draws nothing between seeding the generator and drawing the weights.
    torch.manual_seed(seed)
    return LinearClassifier()


def _last_lesson(losses: Tensor) -> Tensor:
    """Returns the iteration (S,) of the last loss (S, K) not close to 0 or, for squares, to 2."""
    lessons = (losses > SATURATED) & ((losses - 2).abs() > SATURATED)
    numbers = torch.arange(1, losses.shape[1] + 1, device=losses.device)
    return (lessons * numbers).amax(1)


def run_shared(
    experiment: Experiment, seeds: Sequence[int], progress: Callable[[float], None]
) -> list[Descent]:
    """Runs all seeds, distributed over the ranks; returns all runs on every rank.

    Args:
        experiment: experiment to run.
        seeds: seeds of the runs.
        progress: called with the share of the runs that is done.
    """
    ranks, rank = place()
    count = AT_ONCE[experiment.device.type]
    groups = math.ceil(len(seeds) / count)
    # The groups do not depend on the number of ranks.
    mine = {}
    for group in range(rank, groups, ranks):
        mine[group] = experiment.run(seeds[group * count : (group + 1) * count])
        progress((group + 1) / groups)
    found = {group: runs for share in gathered(mine) for group, runs in share.items()}
    return [descent for group in range(groups) for descent in found[group]]
