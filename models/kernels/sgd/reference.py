"""Batch-1 gradient descent as anybody would write it, with autograd."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from models.kernels import doors
from models.losses import Loss


class Module(Protocol):
    """What every version offers."""

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
        """As below."""


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
    """K iterations of each of S runs.

    Args:
        images: (N, D) uint8.
        labels: (N,) -1 or +1.
        order: (S, K).
        weight: (S, D), changed in place.
        bias: (S,), changed in place.
        lr: (K,).
        loss: to be minimised.
        scale: (D,) of the pixels.

    Returns:
        Losses (S, K).

    Raises:
        TypeError: a tensor of another type.
        ValueError: shapes or devices that do not fit, an image that is not there, a label other
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
