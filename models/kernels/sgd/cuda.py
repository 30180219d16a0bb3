"""Batch-1 gradient descent on CUDA, in Triton: one program a run, one launch for all of them.

The weights of a run stay in the registers of its program, which is one warp, from the first
iteration to the last.
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
    # log(1 + x) is inexact for small x; the factor corrects the rounding of 1 + x.
    y = 1.0 + x
    return tl.where(y == 1.0, x, tl.log(y) * (x / (tl.where(y == 1.0, 2.0, y) - 1.0)))


@triton.jit
def _loss_and_slope(m, log, linear, square):
    """The loss at m = y z, and its derivative by m, for the coefficients of a label."""
    # e^-|m| is at most 1 at any margin, and both probabilities keep their digits.
    e = tl.exp(-tl.abs(m))
    large = 1.0 / (1.0 + e)
    small = e * large
    wrong = tl.where(m > 0, small, large)
    right = tl.where(m > 0, large, small)
    loss = log * (tl.maximum(-m, 0.0) + _log1p(e)) + linear * wrong + square * wrong * wrong
    return loss, -(log + (linear + 2.0 * square * wrong) * right) * wrong


@triton.jit
def _load_three(ptr):
    return tl.load(ptr), tl.load(ptr + 1), tl.load(ptr + 2)


# Not specialized: a block of another length would otherwise be compiled anew during a training.
@triton.jit(do_not_specialize=["iterations"])
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
    """All iterations of one run.

    None can begin before the last one ends, and a load takes longer than the arithmetic of an
    iteration: so an image is loaded one iteration ahead, and its index two ahead.
    """
    run = tl.program_id(0).to(tl.int64)
    order_ptr += run * iterations
    losses_ptr += run * iterations
    pixel = tl.arange(0, SIZE)
    inside = pixel < size
    w = tl.load(weight_ptr + run * size + pixel, inside, 0.0)
    b = tl.load(bias_ptr + run)
    scale = tl.load(scale_ptr + pixel, inside, 0.0)
    log0, linear0, square0 = _load_three(amounts_ptr)
    log1, linear1, square1 = _load_three(amounts_ptr + 3)
    image = tl.load(order_ptr)
    seen = tl.load(images_ptr + image * size + pixel, inside, 0)
    label = tl.load(labels_ptr + image)
    rate = tl.load(lr_ptr)
    image = tl.load(order_ptr + tl.minimum(1, iterations - 1))
    for k in range(iterations):
        x = seen.to(w.dtype) * scale
        y = label.to(w.dtype)
        up = y > 0
        log = tl.where(up, log1, log0)
        linear = tl.where(up, linear1, linear0)
        square = tl.where(up, square1, square0)
        step = rate * y

        seen = tl.load(images_ptr + image * size + pixel, inside, 0)
        label = tl.load(labels_ptr + image)
        rate = tl.load(lr_ptr + tl.minimum(k + 1, iterations - 1))
        image = tl.load(order_ptr + tl.minimum(k + 2, iterations - 1))

        loss, slope = _loss_and_slope(y * (tl.sum(w * x) + b), log, linear, square)
        tl.store(losses_ptr + k, loss)
        step *= slope
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
    """Same as `reference.sequential_sgd`; the same bits whatever else runs."""
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
                num_warps=1,  # several warps would have to synchronise in every sum
            )
        weight.copy_(w)
        bias.copy_(b)
    return losses
