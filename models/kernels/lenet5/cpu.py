"""Gradient and gradient descent on the CPU, on torch's tensors, for LeNet-5 and that of 1998."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.kernels import doors
from models.kernels.chunks import chunks_of
from models.kernels.conv_pool.cpu import Convolution, flat, shapes_of
from models.kernels.conv_pool.memory import shape_of
from models.kernels.distortion import NONE, Distortion
from models.kernels.lanes import LANES
from models.kernels.lenet5.design import LENET5, SIZE, Design
from models.kernels.lenet5.folding import arrays_of, net_of
from models.kernels.lenet5.gradient import descent, step_of_ranks
from models.kernels.lenet5.memory import Batch, Memory, Net, Steps, new_memory
from models.kernels.threads import share_out, threads_for
from models.kernels.update import PLAIN, Update

CPU = torch.device("cpu")
AS_THEY_ARE = Design(ink=255)
"""For inputs that are not bytes, which stay unchanged."""

NO_RATES = np.empty(0, np.float32)
"""Rates with which no step is taken."""


class MiniBatches(NamedTuple):
    """K consecutive mini-batches, as indices into N images."""

    images: Tensor
    """(N, 28, 28) uint8, contiguous"""
    labels: Tensor
    """(N,) int64, or class probabilities (N, 10) float32"""
    order: Tensor
    """(n,) int64, the images of the first mini-batch, of the second, ..."""
    numbers: Tensor | None = None
    """(n, `Distortion.numbers`) float32 from -1 to 1; None without distortion"""


class LeNet5Gradient:
    """The gradient of LeNet-5 for images of 28 x 28 pixels, with or without steps.

    Every parameter's `grad` becomes the gradient of the last iteration: each time the same view of
    one flat tensor.

    Args:
        first: C1 and S2.
        second: C3 and S4.
        parameters: weights and biases of the layers that have them, in order, contiguous; read
            anew by every call.
        design: the design of the network.
        distortion: distortion of the images of `descend`.
        update: momentum and weight decay of `descend`.
        velocities: momentum buffers, in the order of the parameters; needed with momentum.

    Raises:
        TypeError: an argument of another type.
        ValueError: shapes that do not fit, connections of maps that do not exist, parameters that
            are not contiguous, padding inside a margin.
    """

    def __init__(
        self,
        first: Convolution,
        second: Convolution,
        parameters: Sequence[Tensor],
        design: Design = LENET5,
        distortion: Distortion = NONE,
        update: Update = PLAIN,
        velocities: Sequence[Tensor] | None = None,
    ) -> None:
        self._size = SIZE + 2 * design.margin
        blocks = shapes_of(torch.empty(0, 1, self._size, self._size), first, second)
        convolutions = (first.weight, first.bias, second.weight, second.bias)
        doors.check_margin(design.margin, first.padding)
        doors.check_parameters(parameters, convolutions, blocks[2].features, design.codes)
        self._parameters = parameters
        self._row = torch.empty(sum(part.numel() for part in parameters))
        rows = self._row.split([part.numel() for part in parameters])
        self._gradients = [row.view_as(p) for row, p in zip(rows, parameters, strict=True)]
        if update.momentum and velocities is None:
            raise ValueError("momentum needs velocities")
        velocities = self._gradients if velocities is None else velocities
        doors.check_parameters(velocities, convolutions, blocks[2].features, design.codes)
        self._design, self._distortion = design, distortion
        self._arrays = arrays_of(blocks, parameters, self._gradients, velocities, design)
        self._net = net_of(blocks, self._arrays, design)
        framed = shape_of(1, SIZE, SIZE, first.padding + design.margin, len(first.bias))
        self._net_of_bytes = self._net._replace(c1=framed)
        self._classes = range(len(self._arrays.folded.output_bias))
        self._update = _in_float32(update)
        self._memory: Memory | None = None
        self._sizes = (0, 0)

    def _run(self, net: Net, batch: Batch, steps: Steps, losses: Any) -> Any:
        """Calls `descent` on as many threads as there is work for; returns each image's loss."""
        images = int(np.diff(steps.ends).max(initial=0))
        threads = threads_for(chunks_of(-(-images // LANES)))
        if self._memory is None or self._sizes != (threads, images):
            learnt, *_, folded = self._arrays
            self._memory = new_memory(self._net, learnt, folded, threads, images)
            self._sizes = threads, images
        # Images of bytes write only the middle of the frame, but inputs write all of it.
        self._memory.c1.framed.fill(self._design.frame)
        each = np.empty(images, np.float32)
        data = batch, steps, self._update, net, self._memory, each, losses
        share_out(descent, threads, *data)
        return each

    def _hand_over(self) -> None:
        for parameter, gradient_ in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient_

    def __call__(self, x: Tensor, labels: Tensor, share: float) -> Tensor:
        """Computes the gradients of `share` times the sum of the losses.

        Args:
            x: (B, 1, 28, 28) float32, or larger by the margin of the design.
            labels: (B,) int64, or class probabilities (B, 10) float32.
            share: weight of each image.

        Returns:
            The loss of each image (B,).

        Raises:
            TypeError: an argument of another type.
            ValueError: another shape, or a label that is not a class.
        """
        doors.check_tensor("x", x, torch.float32, ("B", 1, self._size, self._size), CPU)
        doors.check_targets(labels, self._classes, x)
        batches = MiniBatches(x, labels, torch.arange(len(x)))
        batch = _batch(batches, NONE, AS_THEY_ARE)
        step = Steps(np.array([0, len(x)]), np.array([share], np.float32), NO_RATES)
        losses = self._run(self._net, batch, step, np.empty(1, np.float32))
        self._hand_over()
        return torch.from_numpy(losses)

    def rehearse(self, *, is_joined: bool) -> None:
        """Compiles what `descend` calls, without or with an `all_reduce`; takes no step."""
        none = torch.empty(0, dtype=torch.int64)
        images, rates = torch.empty(0, SIZE, SIZE, dtype=torch.uint8), torch.empty(0)
        self.descend(MiniBatches(images, none, none), none.numpy(), rates, rates)
        if is_joined:
            nothing = self._net._replace(parameters=self._net.parameters[:0])
            step_of_ranks(nothing, self._update, np.float32(0))

    def descend(
        self,
        batches: MiniBatches,
        sizes: np.ndarray[Any, Any],
        shares: Tensor,
        rates: Tensor,
        all_reduce: Callable[[Tensor], Any] | None = None,
    ) -> Tensor:
        """Takes K steps of gradient descent, one after the other.

        Args:
            batches: the mini-batches.
            sizes: (K,) int64, how many images each mini-batch has.
            shares: (K,) weight of each image in the loss of its mini-batch.
            rates: (K,) learning rates.
            all_reduce: sums a tensor over all ranks, in place; None on one rank.

        Returns:
            The loss of each mini-batch (K,), of this rank's images.

        Raises:
            TypeError: an argument of another type.
            ValueError: another shape, a label that is not a class, an image that does not exist,
                or sizes that do not add up.
        """
        images, labels, order, numbers = batches
        doors.check_images(images, (SIZE, SIZE), order, CPU)
        doors.check_targets(labels, self._classes, images)
        doors.check_steps(sizes, shares, rates, len(order))
        if numbers is not None:
            shape = len(order), self._distortion.numbers
            doors.check_tensor("numbers", numbers, torch.float32, shape, CPU)
        losses = np.empty(len(sizes), np.float32)
        batch = _batch(batches, self._distortion, self._design)
        ends = np.concatenate([[0], np.cumsum(sizes)])
        steps = Steps(ends, flat(shares.float()), flat(rates.float()))
        net = self._net_of_bytes
        if all_reduce is None:
            self._run(net, batch, steps, losses)
        else:
            for k, step in enumerate(_one_by_one(steps)):
                self._run(net, batch, step, losses[k : k + 1])
                all_reduce(self._row)
                step_of_ranks(net, self._update, steps.rates[k])
        self._hand_over()
        return torch.from_numpy(losses)


def _in_float32(update: Update) -> Any:
    """The update for compiled code, which would compute in float64 with Python's floats."""
    numbers: Any = np.float32(update.momentum), np.float32(update.weight_decay)
    return Update(numbers[0], update.nesterov, numbers[1])


def _batch(batches: MiniBatches, distortion: Distortion, design: Design) -> Batch:
    rotation, *others = distortion
    labels, targets = batches.labels, torch.empty(0, 1)
    if labels.is_floating_point():
        labels, targets = torch.empty(0, dtype=torch.int64), labels
    numbers = torch.empty(0, 0) if batches.numbers is None else batches.numbers
    return Batch(
        flat(batches.images),
        np.float32(design.unit),
        np.float32(design.paper),
        np.array([math.radians(rotation), *others], np.float32),
        flat(labels),
        targets.detach().contiguous().numpy(),
        numbers.detach().contiguous().numpy(),
        flat(batches.order),
        np.float32(1),
    )


def _one_by_one(steps: Steps) -> Iterator[Steps]:
    """Yields each mini-batch by itself, without a rate, so that no step is taken yet."""
    for k, share in enumerate(steps.shares):
        yield Steps(steps.ends[k : k + 2], share[None], NO_RATES)
