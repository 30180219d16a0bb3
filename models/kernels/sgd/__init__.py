"""Gradient descent on one image at a time, K updates in one call.

A linear classifier z = w . (scale x) + b, label y of -1 or +1, takes for each image of an order

    w <- w - lr l'(z) scale x        b <- b - lr l'(z)

l being one of `models.losses`. No iteration can begin before the last one ends, so a call is one
long loop; what runs in parallel are runs with other seeds.

Shapes: N images held, D pixels of one, K iterations, S runs.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import Literal

import torch
from torch import Tensor

from models.kernels.notice import notice_if_slow
from models.kernels.sgd import reference
from models.losses import Loss

Backend = Literal["auto", "reference", "cpu", "cuda"]
NEEDS = {"cpu": "numba", "cuda": "triton"}


def sequential_sgd(
    images: Tensor,
    labels: Tensor,
    order: Tensor,
    weight: Tensor,
    bias: Tensor,
    lr: Tensor | float,
    loss: Loss,
    *,
    scale: Tensor | float = 1.0,
    backend: Backend = "auto",
) -> Tensor:
    """K iterations of batch size 1, one after the other, exactly.

    Args:
        images: (N, D) or (N, H, W) uint8; read where they are, no row is copied.
        labels: (N,) -1 or +1, int64.
        order: (K,) the image of each iteration, int64; (S, K) for S runs at once.
        weight: (D,) or (S, D), float32 or float64; changed in place.
        bias: () or (S,); changed in place.
        lr: learning rate, one for all iterations or (K,).
        loss: to be minimised.
        scale: pixels are multiplied by it; one for all, or (D,).
        backend: the version that runs; auto takes the fastest that can.

    Returns:
        The loss of each iteration before its update, (K,) or (S, K).

    Raises:
        TypeError: a tensor of another type.
        ValueError: shapes or devices that do not fit, an image that is not there, a label other
            than -1 and +1, a backend that cannot run.
    """
    runs, weights, pixels = _rows(order), _rows(weight), _rows(images).flatten(1)
    biases = bias if bias.dim() else bias.reshape(1)
    rates = _spread("lr", lr, runs.shape[-1], weight)
    scales = _spread("scale", scale, pixels.shape[-1], weight)
    version = choose(backend, weight.device, weight.dtype)
    module = reference if version == "reference" else _compiled(version)
    state = weights.detach(), biases.detach()
    losses: Tensor = module.sequential_sgd(pixels, labels, runs, *state, rates, loss, scales)
    return losses.view(order.shape)


def _rows(tensor: Tensor) -> Tensor:
    """The same memory with two axes or more."""
    return tensor if tensor.dim() > 1 else tensor.reshape(1, -1)


def _spread(name: str, value: Tensor | float, length: int, like: Tensor) -> Tensor:
    """One value for all, or one for each, as (length,)."""
    tensor = torch.as_tensor(value, dtype=like.dtype, device=like.device).detach()
    if tensor.shape not in ((), (1,), (length,)):
        raise ValueError(f"expected {name} of shape () or ({length}), got {tuple(tensor.shape)}")
    return tensor.expand(length).contiguous()


def choose(backend: str, device: torch.device, dtype: torch.dtype) -> str:
    """The version that runs for weights of `dtype` on `device`.

    Raises:
        ValueError: `backend` cannot run there.
    """
    if backend not in ("auto", "reference", "cpu", "cuda"):
        raise ValueError(f"backend must be auto, reference, cpu or cuda, got {backend!r}")
    obstacle = None
    if backend not in ("auto", "reference", device.type):
        obstacle = f"the model is on {device.type}"
    elif dtype not in (torch.float32, torch.float64):
        obstacle = f"it computes in float32 and float64, not {dtype}"
    elif device.type not in NEEDS:
        obstacle = f"there is none for {device.type}"
    elif find_spec(NEEDS[device.type]) is None:
        obstacle = f"{NEEDS[device.type]} is not installed"
    if obstacle and backend in ("cpu", "cuda"):
        raise ValueError(f"backend {backend} cannot run: {obstacle}")
    return "reference" if obstacle or backend == "reference" else device.type


def compile_ahead(device: torch.device) -> None:
    """Compiles the loop of a device, or loads it from its cache; says so where it takes long."""
    with notice_if_slow("Compiling the descent, once on this machine (about 5 s) ..."):
        pixel = torch.zeros(1, 1, dtype=torch.uint8, device=device)
        zero = torch.zeros(1, dtype=torch.int64, device=device)
        state = torch.zeros(1, device=device), torch.zeros(1, device=device)
        sequential_sgd(pixel, zero + 1, zero, *state, 0.0, Loss((0, 0, 0), (0, 0, 0)))


def _compiled(version: str) -> reference.Module:
    # Numba and Triton take a second to load; only who uses them waits.
    module: reference.Module = importlib.import_module(f"models.kernels.sgd.{version}")
    return module
