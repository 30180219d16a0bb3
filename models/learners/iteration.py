"""A training iteration that a CUDA graph can record: it reads its inputs from fixed buffers.

Shapes: K iterations, B images of a mini-batch, N images held.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from models.distortion import distort, waves_on
from models.learners.compiled import update_of, velocity_of

if TYPE_CHECKING:
    from models.classifier import Classifier


class Piece(NamedTuple):
    """K consecutive mini-batches of one size, on the device."""

    order: Tensor
    """(K, B) int64: indices of their images."""
    numbers: Tensor | None
    """(K, B, n) random numbers for their distortion; None without one."""
    shares: Tensor
    """(K,) weight of each image in the loss."""
    rates: Tensor
    """(K,) learning rates."""

    def split(self, count: int) -> Iterator[Piece]:
        """Yields pieces of at most `count` mini-batches."""
        for start in range(0, len(self.order), count):
            part = slice(start, start + count)
            numbers = self.numbers if self.numbers is None else self.numbers[part]
            yield Piece(self.order[part], numbers, self.shares[part], self.rates[part])


class Memory:
    """Fixed buffers for the inputs of the next iterations, and for their losses.

    Args:
        model: the model to train.
        device: device of the buffers.
        size: B, images of a mini-batch.
        count: K, iterations that the buffers have room for.
    """

    def __init__(self, model: Classifier, device: torch.device, size: int, count: int) -> None:
        self.images = torch.zeros(count, size, *model.pixels, dtype=torch.uint8, device=device)
        self.labels = torch.zeros(count, size, dtype=torch.int64, device=device)
        self.numbers = None
        if any(model.distortion):
            self.numbers = torch.zeros(count, size, model.distortion.numbers, device=device)
        self.shares = torch.zeros(count, device=device)
        self.rates = torch.zeros(count, device=device)
        self.losses = torch.zeros(count, device=device)
        self.waves = None
        if model.distortion.elastic:
            self.waves = waves_on(model.pixels[-1], self.losses)
        self.k = torch.zeros(1, dtype=torch.int64, device=device)
        """Index of the next iteration."""

    def lay_out(self, images: Tensor, labels: Tensor, piece: Piece) -> None:
        """Copies the inputs of the next iterations, from images (N, H, W) and labels (N,)."""
        order, numbers, shares, rates = piece
        count = len(order)
        if order.numel():
            self.images[:count] = images.index_select(0, order.flatten()).view(
                *order.shape, *images.shape[1:]
            )
            self.labels[:count] = labels.index_select(0, order.flatten()).view(order.shape)
        if self.numbers is not None and numbers is not None:
            self.numbers[:count] = numbers
        self.shares[:count], self.rates[:count] = shares, rates
        self.k.zero_()

    def next(self, part: Tensor) -> Tensor:
        """The entry of a buffer for the next iteration."""
        return part.index_select(0, self.k).squeeze(0)


class Iteration:
    """Forward pass, backward pass and step, without reading a value back to the host.

    Args:
        model: the model to train.
        memory: the inputs of the iterations.
        optimizer: holds the velocities.
        all_reduce: sums a tensor over all ranks; None on one.
    """

    def __init__(
        self,
        model: Classifier,
        memory: Memory,
        optimizer: torch.optim.SGD,
        all_reduce: Callable[[Tensor], Any] | None,
    ) -> None:
        self._model, self.memory, self._all_reduce = model, memory, all_reduce
        self.parameters: list[Tensor] = list(model.net.parameters())
        # Kept: a recording reads them and the tables cached for them, even if the net gets others.
        self._buffers = list(model.net.buffers())
        self.update = update_of(optimizer)
        self.velocities: list[Tensor] = []
        if self.update.momentum:
            self.velocities = [velocity_of(optimizer, weight) for weight in self.parameters]
        # One flat tensor, so that ranks sum the gradients in one call.
        self._row = self.parameters[0].new_zeros(sum(p.numel() for p in self.parameters))
        rows = self._row.split_with_sizes([weight.numel() for weight in self.parameters])
        self._gradients = [
            row.view_as(weight) for row, weight in zip(rows, self.parameters, strict=True)
        ]

    def __call__(self) -> None:
        """Takes the next iteration."""
        self.differentiate()
        self.join()
        self.take_step()

    def on(self, memory: Memory) -> Iteration:
        """The same iteration on other buffers; it shares the gradients and velocities."""
        other = copy.copy(self)
        other.memory = memory
        return other

    def reads(self, optimizer: torch.optim.SGD) -> tuple[Any, ...]:
        """What a recording keeps: the update, and the addresses of weights and velocities.

        Args:
            optimizer: holds the current update and velocities.
        """
        tensors = list(self.parameters)
        if self.velocities:
            tensors += [velocity_of(optimizer, weight) for weight in self.parameters]
        return update_of(optimizer), *(tensor.data_ptr() for tensor in tensors)

    @contextmanager
    def undone(self) -> Iterator[None]:
        """A context that restores weights and velocities when it ends."""
        state = [*self.parameters, *self.velocities]
        before = [tensor.detach().clone() for tensor in state]
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(state, before)

    def differentiate(self) -> None:
        """Writes the loss and the gradients."""
        model, memory = self._model, self.memory
        images = memory.next(memory.images)
        if memory.numbers is not None:
            images = distort(images.to(model.dtype), model.distortion, memory.next(memory.numbers))
        x = model.inputs(images)
        targets = model.targets(x, memory.next(memory.labels))
        each = model.losses(model.net(x), targets)
        loss = each.sum() * memory.next(memory.shares)
        gradients = torch.autograd.grad(loss, self.parameters)
        torch.cat([gradient.reshape(-1) for gradient in gradients], out=self._row)
        memory.losses.index_copy_(0, memory.k, loss.detach().float().view(1))

    def join(self) -> None:
        """Sums the gradients over all ranks."""
        if self._all_reduce is not None:
            self._all_reduce(self._row)

    def take_step(self) -> None:
        """Takes the step, and advances the counter."""
        memory = self.memory
        with torch.no_grad():
            torch._fused_sgd_(
                self.parameters,
                self._gradients,
                self.velocities,
                **self.update._asdict(),
                lr=memory.next(memory.rates),
                dampening=0.0,
                maximize=False,
                is_first_step=False,
            )
        memory.k.add_(1)

    def hand_over(self) -> None:
        """Makes the gradients of the last recorded iteration the `grad` of the parameters."""
        for weight, gradient in zip(self.parameters, self._gradients, strict=True):
            weight.grad = gradient
