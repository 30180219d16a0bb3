"""Compares one step of a learner, from random images and weights, with autograd in float64."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from models.distortion import distort
from models.kernels.trust import Errors, relative_error
from models.kernels.update import Update

if TYPE_CHECKING:
    from models.classifier import Classifier

RATE = 0.1


class Step(NamedTuple):
    """The mini-batch of a step."""

    images: Tensor
    """(B, H, W) uint8"""
    labels: Tensor
    """(B,) int64"""
    numbers: Tensor | None
    """(B, n) random numbers for the distortion; None without one."""


def randomise(parameters: Sequence[Tensor]) -> list[Tensor]:
    """Draws initial weights in place, since trained ones may be anything; returns copies."""
    generator = torch.Generator().manual_seed(1)
    for weight in parameters:
        bound = weight[0].numel() ** -0.5 if weight.dim() > 1 else 0.1
        drawn = bound * (2 * torch.rand(weight.shape, generator=generator) - 1)
        weight.data.copy_(drawn)
    return [weight.detach().clone() for weight in parameters]


def random_step(model: Classifier, size: int) -> Step:
    """A mini-batch of `size` random images on the CPU, the same every time."""
    generator = torch.Generator().manual_seed(0)
    shape = (size, *model.pixels)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    # Smooth like digits, since on noise distortion amplifies the rounding of its coordinates.
    images = torch.nn.functional.avg_pool2d(images.float(), 5, 1, 2).to(torch.uint8)
    labels = torch.randint(0, len(model.labels), (size,), generator=generator)
    numbers = 2 * torch.rand(size, model.distortion.numbers, generator=generator) - 1
    return Step(images, labels, numbers if any(model.distortion) else None)


def errors(
    model: Classifier,
    update: Update,
    step: Step,
    loss: Tensor,
    before: Sequence[Tensor],
    after: Sequence[Tensor],
) -> Errors:
    """Relative errors of a step that began without velocity and had the learning rate `RATE`.

    Args:
        model: the model that took the step.
        update: momentum and weight decay of the step.
        step: the mini-batch of the step.
        loss: () the mean loss that the learner returned.
        before: the parameters of its net before the step, in order.
        after: the parameters after it.
    """
    net = copy.deepcopy(model.net).double().cpu()
    with torch.enable_grad():
        for weight, start in zip(net.parameters(), before, strict=False):
            weight.data.copy_(start)
        x = _inputs(model, step)
        expected = model.losses(net(x), model.targets(x, step.labels)).mean()
        torch.autograd.backward(expected, inputs=list(net.parameters()))
    torch.optim.SGD(net.parameters(), lr=RATE, **update._asdict()).step()
    found = {"loss": relative_error(loss, expected.detach())}
    columns = zip(net.named_parameters(), before, after, strict=False)
    for (name, weight), start, end in columns:
        start = start.detach().cpu().double()
        change = end.detach().cpu().double() - start
        found[name] = relative_error(change, weight.detach() - start)
    return found


def _inputs(model: Classifier, step: Step) -> Tensor:
    """The network inputs, computed by the model in its own type on the CPU, in float64."""
    images = step.images
    if step.numbers is not None:
        images = distort(images.to(model.dtype), model.distortion, step.numbers)
    return model.inputs(images).double()
