"""LeNet-5's gradient and gradient descent on the CPU, for torch's tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.kernels import doors
from models.kernels.conv_pool.cpu import Block, flat, shapes_of
from models.kernels.conv_pool.memory import new_scratches
from models.kernels.lanes import LANES
from models.kernels.lenet5.gradient import descent, gradient
from models.kernels.lenet5.memory import Batch, Memory, Net, Parameters, Steps
from models.kernels.threads import use_threads

CPU = torch.device("cpu")


class LeNet5Gradient:
    """The gradient of LeNet-5 for images of 28 x 28 pixels, alone and followed by steps.

    Args:
        first: C1 and S2.
        second: C3 and S4.
        parameters: weights and biases of C1, C3, C5, F6 and the output layer, contiguous; read anew
            by every call.
        gradients: where their gradients go, of the same shapes.

    Raises:
        TypeError: an argument of another type.
        ValueError: shapes that do not fit, connections of maps that do not exist, parameters that
            are not contiguous.
    """

    def __init__(
        self,
        first: Block,
        second: Block,
        parameters: Sequence[Tensor],
        gradients: Sequence[Tensor],
    ) -> None:
        blocks = shapes_of(torch.empty(0, 1, 28, 28), first, second)
        convolutions = (first.weight, first.bias, second.weight, second.bias)
        features = blocks[2].features
        doors.check_parameters(parameters, convolutions, features)
        doors.check_parameters(gradients, parameters[:4], features)
        self._classes = range(len(parameters[-1]))
        self._net = Net(
            *blocks, Parameters(*map(flat, parameters)), Parameters(*map(flat, gradients))
        )
        self._memory: Memory | None = None

    def _memory_for(self, images: int) -> Memory:
        """For as many threads as that many images need; later calls use it again."""
        threads = use_threads(-(-images // LANES))
        if self._memory is None or self._memory.threads != threads:
            c1, c3 = (new_scratches(part, threads, True) for part in (self._net.c1, self._net.c3))
            self._memory = Memory(threads, c1, c3)
        return self._memory

    def __call__(self, x: Tensor, labels: Tensor, share: float) -> Tensor:
        """Writes the gradients of share times the sum of the cross-entropies.

        Args:
            x: (B, 1, 28, 28) float32.
            labels: (B,) int64.
            share: weight of each image.

        Returns:
            The cross-entropy of each image (B,).

        Raises:
            TypeError: an argument of another type.
            ValueError: another shape, or a label that is no class.
        """
        doors.check_tensor("x", x, torch.float32, ("B", 1, 28, 28), CPU)
        doors.check_labels(labels, self._classes, x)
        losses = np.empty(len(x), np.float32)
        batch = Batch(flat(x), np.float32(1), flat(labels), np.arange(len(x)), np.float32(share))
        gradient(batch, self._net, self._memory_for(len(x)), losses)
        return torch.from_numpy(losses)

    def descend(
        self,
        images: Tensor,
        labels: Tensor,
        order: Tensor,
        sizes: np.ndarray[Any, Any],
        shares: Tensor,
        rates: Tensor,
    ) -> Tensor:
        """Takes K steps of plain gradient descent, one after the other.

        Args:
            images: (N, 28, 28) uint8, contiguous; 255 counts as 1.
            labels: (N,) int64.
            order: (n,) int64, the images of the first mini-batch, of the second, ...
            sizes: (K,) int64, how many each has.
            shares: (K,) weight of each image in the loss of its mini-batch.
            rates: (K,) learning rates.

        Returns:
            The loss of each mini-batch (K,).

        Raises:
            TypeError: an argument of another type.
            ValueError: another shape, a label that is no class, an image that does not exist, or
                sizes that do not add up.
        """
        doors.check_images(images, (28, 28), order, CPU)
        doors.check_labels(labels, self._classes, images)
        doors.check_steps(sizes, shares, rates, len(order))
        losses = np.empty(len(sizes), np.float32)
        steps = Steps(
            flat(order), np.ascontiguousarray(sizes), flat(shares.float()), flat(rates.float())
        )
        memory = self._memory_for(int(sizes.max(initial=0)))
        descent(flat(images), np.float32(255), flat(labels), steps, self._net, memory, losses)
        return torch.from_numpy(losses)
