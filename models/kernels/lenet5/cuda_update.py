"""A step of gradient descent on CUDA, in Triton: all parameters in one launch.

In torch's fused SGD one program takes a whole parameter: C5's 48,000 weights on one multiprocessor.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate

import torch
import triton
import triton.language as tl
from torch import Tensor

from models.kernels.update import Update

TILE = 512
"""Weights of a program."""


@triton.jit
def step(
    tiles_ptr,  # (T, 4) int64, as `tiles` gives them
    gradients_ptr,  # (P,)
    rates_ptr,  # (K,)
    k_ptr,  # (1,): index of the rate
    momentum,
    weight_decay,
    HAS_VELOCITY: tl.constexpr,
    IS_NESTEROV: tl.constexpr,
    TILE: tl.constexpr,
):
    """Updates one tile of weights, as `torch.optim.SGD` documents it."""
    tile_ptr = tiles_ptr + 4 * tl.program_id(0)
    weights_ptr = tl.load(tile_ptr).to(tl.pointer_type(tl.float32))
    n = tl.arange(0, TILE)
    there = n < tl.load(tile_ptr + 3)
    weights = tl.load(weights_ptr + n, there, 0.0)
    gradient = tl.load(gradients_ptr + tl.load(tile_ptr + 2) + n, there, 0.0)
    change = gradient + weight_decay * weights
    if HAS_VELOCITY:
        velocities_ptr = tl.load(tile_ptr + 1).to(tl.pointer_type(tl.float32))
        velocity = momentum * tl.load(velocities_ptr + n, there, 0.0) + change
        tl.store(velocities_ptr + n, velocity, there)
        change = change + momentum * velocity if IS_NESTEROV else velocity
    rate = tl.load(rates_ptr + tl.load(k_ptr))
    tl.store(weights_ptr + n, weights - rate * change, there)


def tiles(parameters: Sequence[Tensor], velocities: Sequence[Tensor]) -> Tensor:
    """The memory that each program updates.

    Args:
        parameters: float32, on one device; they must stay in place.
        velocities: likewise, in the same shapes; or none.

    Returns:
        (T, 4) int64: the addresses of a tile's weights and velocities, its offset in the flat
        tensor of all gradients, and its number of weights.

    Raises:
        ValueError: a tensor is not contiguous.
    """
    if not all(tensor.is_contiguous() for tensor in (*parameters, *velocities)):
        raise ValueError("expected parameters and velocities that are contiguous")
    rows = list(_tiles(parameters, velocities))
    return torch.tensor(rows, dtype=torch.int64, device=parameters[0].device)


def _tiles(parameters: Sequence[Tensor], velocities: Sequence[Tensor]) -> Iterator[list[int]]:
    starts = accumulate((weight.numel() for weight in parameters), initial=0)
    for i, (weight, start) in enumerate(zip(parameters, starts, strict=False)):
        for first in range(0, weight.numel(), TILE):
            byte = first * weight.element_size()
            velocity = velocities[i].data_ptr() + byte if velocities else 0
            count = min(TILE, weight.numel() - first)
            yield [weight.data_ptr() + byte, velocity, start + first, count]


def take_step(places: Tensor, gradients: Tensor, rates: Tensor, k: Tensor, update: Update) -> None:
    """Takes a step for all parameters.

    Args:
        places: the result of `tiles`.
        gradients: (P,) gradients of all parameters, in order.
        rates: (K,) learning rates.
        k: (1,) int64: index of the rate.
        update: momentum and weight decay.
    """
    with torch.cuda.device_of(gradients):  # Triton launches on the current device
        step[(len(places),)](
            places,
            gradients,
            rates,
            k,
            float(update.momentum),
            float(update.weight_decay),
            HAS_VELOCITY=update.momentum > 0,
            IS_NESTEROV=update.nesterov,
            TILE=TILE,
        )
