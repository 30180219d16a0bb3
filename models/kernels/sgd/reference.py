"""Batch-1 gradient descent in its plainest form, with autograd."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from models.kernels import doors
from models.losses import Loss


class Module(Protocol):
    """The interface of every version."""

    def sequential_sgd(
        self,
        images: Tensor,
        labels: Tensor,
        order: Tensor,
        weight: Tensor,
        bias: Tensor,
        lr: Tensor,
        loss: Loss,
        scale: Tensor,
    ) -> Tensor:
        """See `reference.sequential_sgd`."""


def sequential_sgd(
    images: Tensor,
    labels: Tensor,
    order: Tensor,
    weight: Tensor,
    bias: Tensor,
    lr: Tensor,
    loss: Loss,
    scale: Tensor,
) -> Tensor:
    """Takes K iterations of each of S runs.

    Args:
        images: (N, D) uint8.
        labels: (N,) -1 or +1.
        order: (S, K).
        weight: (S, D), changed in place.
        bias: (S,), changed in place.
        lr: (K,).
        loss: the loss to minimise.
        scale: (D,) factors of the pixels.

    Returns:
        Losses (S, K).

    Raises:
        TypeError: a tensor of another type.
        ValueError: shapes or devices that do not fit, an image that does not exist, a label other
            than -1 and +1.
    """
    doors.check_descent(images, labels, order, weight, bias, lr, scale)
    losses = torch.empty(order.shape, dtype=weight.dtype, device=weight.device)
    for run in range(len(order)):
        w = weight[run].clone().requires_grad_()
        b = bias[run].clone().requires_grad_()
        optimizer = torch.optim.SGD([w, b])
        for k, image in enumerate(order[run].tolist()):
            x, y = images[image].to(w.dtype) * scale, labels[image]
            value = loss(x @ w + b, y)
            optimizer.param_groups[0]["lr"] = lr[k].item()
            optimizer.zero_grad()
            torch.autograd.backward(value)
            optimizer.step()
            losses[run, k] = value.detach()
        weight[run], bias[run] = w.detach(), b.detach()
    return losses
