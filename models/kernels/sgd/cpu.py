"""Batch-1 gradient descent on the CPU, compiled by Numba; threads share the runs.

An iteration goes through the weights once: while it subtracts the gradient of its own image, it
already multiplies the new weights with the next one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from models.kernels import doors
from models.kernels.compiled import compiled, entry
from models.kernels.threads import share_out, threads_for
from models.kernels.tickets import finish, next_task, open_tasks
from models.losses import Loss

# Sums may be reordered, to use vectors; infinities and NaN are respected.
FAST = {"reassoc", "contract", "nsz"}


@compiled(fastmath=FAST)
def _loss_and_slope(z, y, amounts):
    """The loss at margin z, and its derivative; amounts (2, 3) as `Loss.amounts`."""
    log, linear, square = amounts[1] if y > 0 else amounts[0]
    m = y * z
    # e^-|m| is at most 1 at any margin, and both probabilities keep their digits.
    e = math.exp(-abs(m))
    large = 1 / (1 + e)
    small = e * large
    wrong, right = (small, large) if m > 0 else (large, small)
    loss = log * (max(-m, 0) + math.log1p(e)) + linear * wrong + square * wrong * wrong
    return loss, -y * (log + (linear + 2 * square * wrong) * right) * wrong


@compiled(fastmath=FAST)
def _run(images, labels, order, w, b, lr, amounts, scale, losses):
    """One run: w (D,) changed in place, losses (K,) filled; returns the bias."""
    # Numba turns float32 and an integer into float64: without kind() all loops would run in that.
    kind = w.dtype.type
    step = kind(0)
    x = images[order[0]]
    # One pass more than iterations: the first has nothing to subtract yet, the last nothing to
    # multiply. Every iteration then takes the same instructions, wherever a block begins.
    for k in range(len(order) + 1):
        following = images[order[min(k, len(order) - 1)]]
        z = kind(0)
        for j in range(len(w)):
            new = w[j] - step * (scale[j] * kind(x[j]))
            w[j] = new
            z += new * (scale[j] * kind(following[j]))
        if k < len(order):
            losses[k], slope = _loss_and_slope(z + b, kind(labels[order[k]]), amounts)
            step = kind(lr[k] * slope)
            b -= step
            x = following
    return b


@entry(fastmath=FAST)
def _all_runs(worker, tickets, images, labels, order, weight, bias, lr, amounts, scale, losses):
    if worker == 0:
        open_tasks(tickets, len(order))
    while True:
        s = next_task(tickets, len(order))
        if s < 0:
            break
        bias[s] = _run(images, labels, order[s], weight[s], bias[s], lr, amounts, scale, losses[s])
        finish(tickets, len(order))


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
    """Same as `reference.sequential_sgd`; the same bits for any number of threads."""
    doors.check_descent(images, labels, order, weight, bias, lr, scale)
    losses = torch.empty(order.shape, dtype=weight.dtype)
    if losses.numel():
        w, b = weight.contiguous(), bias.contiguous()
        amounts = loss.amounts(w)
        tensors = (images, labels, order, w, b, lr, amounts, scale, losses)
        arrays = (tensor.contiguous().numpy() for tensor in tensors)
        share_out(_all_runs, threads_for(len(order)), *arrays)
        weight.copy_(w)
        bias.copy_(b)
    return losses
