"""Batch-1 gradient descent on CUDA, in Triton: one program a run, one launch for all of them.

The weights of a run stay in the registers of its program from the first iteration to the last.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from models.kernels import doors
from models.losses import Loss


@triton.jit
def _log1p(x):
    # log(1 + x) loses x where it is small; the factor gives back what rounding took from 1 + x.
    y = 1.0 + x
    return tl.where(y == 1.0, x, tl.log(y) * (x / (tl.where(y == 1.0, 2.0, y) - 1.0)))


@triton.jit
def _run(
    images_ptr,  # (N, D) uint8
    labels_ptr,  # (N,) int64
    order_ptr,  # (S, K) int64
    weight_ptr,  # (S, D)
    bias_ptr,  # (S,)
    lr_ptr,  # (K,)
    amounts_ptr,  # (2, 3)
    scale_ptr,  # (D,)
    losses_ptr,  # (S, K)
    iterations,  # K
    size,  # D
    SIZE: tl.constexpr,  # D, filled up to a power of two
):
    run = tl.program_id(0).to(tl.int64)
    pixel = tl.arange(0, SIZE)
    inside = pixel < size
    w = tl.load(weight_ptr + run * size + pixel, inside, 0.0)
    b = tl.load(bias_ptr + run)
    scale = tl.load(scale_ptr + pixel, inside, 0.0)
    for k in range(iterations):
        image = tl.load(order_ptr + run * iterations + k)
        x = tl.load(images_ptr + image * size + pixel, inside, 0).to(w.dtype) * scale
        y = tl.load(labels_ptr + image).to(w.dtype)
        amounts = amounts_ptr + tl.where(y > 0, 3, 0)
        log = tl.load(amounts)
        linear = tl.load(amounts + 1)
        square = tl.load(amounts + 2)
        m = y * (tl.sum(w * x) + b)
        # e^-|m| is at most 1 at any margin, and both probabilities keep their digits.
        e = tl.exp(-tl.abs(m))
        large = 1.0 / (1.0 + e)
        small = e * large
        wrong = tl.where(m > 0, small, large)
        right = tl.where(m > 0, large, small)
        loss = log * (tl.maximum(-m, 0.0) + _log1p(e)) + linear * wrong + square * wrong * wrong
        tl.store(losses_ptr + run * iterations + k, loss)
        step = tl.load(lr_ptr + k) * -y * (log + (linear + 2.0 * square * wrong) * right) * wrong
        w -= step * x
        b -= step
    tl.store(weight_ptr + run * size + pixel, w, inside)
    tl.store(bias_ptr + run, b)


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
    """As `reference.sequential_sgd`; the same bits whatever else runs."""
    doors.check_descent(images, labels, order, weight, bias, lr, scale)
    losses = torch.empty(order.shape, dtype=weight.dtype, device=weight.device)
    runs, iterations = order.shape
    if losses.numel():
        w, b = weight.contiguous(), bias.contiguous()
        with torch.cuda.device_of(w):  # Triton launches on the current device
            _run[(runs,)](
                images.contiguous(),
                labels.contiguous(),
                order.contiguous(),
                w,
                b,
                lr,
                loss.amounts(w),
                scale,
                losses,
                iterations,
                images.shape[1],
                SIZE=triton.next_power_of_2(images.shape[1]),
            )
        weight.copy_(w)
        bias.copy_(b)
    return losses
