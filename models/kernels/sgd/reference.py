"""Batch-1 gradient descent as anybody would write it, with autograd."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

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
    """
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
