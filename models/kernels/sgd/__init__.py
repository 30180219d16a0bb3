"""Gradient descent on one image at a time, K updates in one call.

A linear classifier z = w . (scale x) + b, label y of -1 or +1, takes for each image of an order

    w <- w - lr l'(z) scale x        b <- b - lr l'(z)

l being one of `models.losses`. No iteration can begin before the last one ends, so a call is one
long loop; only runs with other seeds are parallel.

Shapes: N images held, D pixels of one, K iterations, S runs.
"""

from __future__ import annotations

import importlib
from typing import Literal

import torch
from torch import Tensor

from models.kernels import packages, trust
from models.kernels.looks import send
from models.kernels.notice import notice_if_slow
from models.kernels.packages import NEEDS
from models.kernels.sgd import proof, reference
from models.losses import Loss

Backend = Literal["auto", "reference", "cpu", "cuda"]
CPU = torch.device("cpu")


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
        images: (N, D) or (N, H, W) uint8; read in place.
        labels: (N,) -1 or +1, int64.
        order: (K,) the image of each iteration, int64; (S, K) for S runs at once.
        weight: (D,) or (S, D), float32 or float64; changed in place.
        bias: () or (S,); changed in place.
        lr: learning rate, one for all iterations or (K,).
        loss: the loss to minimise.
        scale: factor of the pixels, one for all or (D,).
        backend: the version that runs; auto takes the fastest that can run.

    Returns:
        The loss of each iteration before its update, (K,) or (S, K).

    Raises:
        TypeError: a tensor of another type.
        ValueError: shapes or devices that do not fit, an image that does not exist, a label other
            than -1 and +1, a backend that cannot run.
    """
    runs, weights, pixels = _rows(order), _rows(weight), _rows(images).flatten(1)
    biases = bias if bias.dim() else bias.reshape(1)
    rates = _spread("lr", lr, runs.shape[-1], weight)
    scales = _spread("scale", scale, pixels.shape[-1], weight)
    version = choose(backend, weight.device, weight.dtype)
    module = reference if version == "reference" else _compiled(version)
    state = weights.detach(), biases.detach()
    if version == "cpu" != weight.device.type:
        pixels, labels, runs, rates, scales = (
            tensor.cpu() for tensor in (pixels, labels, runs, rates, scales)
        )
        here = state[0].cpu(), state[1].cpu()
        losses = module.sequential_sgd(pixels, labels, runs, *here, rates, loss, scales)
        for old, new in zip(state, here, strict=True):
            old.copy_(new)
        return losses.to(weight.device).view(order.shape)
    losses = module.sequential_sgd(pixels, labels, runs, *state, rates, loss, scales)
    return losses.view(order.shape)


def _rows(tensor: Tensor) -> Tensor:
    """A view with at least two axes."""
    return tensor if tensor.dim() > 1 else tensor.reshape(1, -1)


def _spread(name: str, value: Tensor | float, length: int, like: Tensor) -> Tensor:
    """One value for all, or one for each, as (length,)."""
    tensor = send(torch.as_tensor(value, dtype=like.dtype).detach(), like.device)
    if tensor.shape not in ((), (1,), (length,)):
        raise ValueError(f"expected {name} of shape () or ({length}), got {tuple(tensor.shape)}")
    return tensor.expand(length).contiguous()


def choose(backend: Backend, device: torch.device, dtype: torch.dtype) -> Backend:
    """The version that runs for weights of `dtype` on `device`.

    If a device has none that can be trusted, the CPU's runs: 50,000 iterations of autograd on a GPU
    take a minute, while a copy of 784 weights is nearly free.

    Raises:
        ValueError: `backend` cannot run there.
    """
    if backend not in ("auto", "reference", *NEEDS):
        raise ValueError(f"backend must be auto, reference, cpu or cuda, got {backend!r}")
    if backend == "reference":
        return backend
    if backend == "cuda" != device.type:
        raise ValueError(f"backend cuda cannot run: the model is on {device.type}")
    if backend == "auto":
        versions: tuple[Backend, ...] = ("cuda", "cpu") if device.type == "cuda" else ("cpu",)
        for version in versions:
            found = _obstacle(version, device, dtype)
            if found is None:
                return version
            trust.tell(proof.DESCENT[version], _place(version, device), found)
        return "reference"
    if obstacle := _obstacle(backend, device, dtype):
        raise ValueError(f"backend {backend} cannot run: {obstacle}")
    return backend


def _obstacle(version: Backend, device: torch.device, dtype: torch.dtype) -> str | None:
    if dtype not in (torch.float32, torch.float64):
        return f"it computes in float32 and float64, not {dtype}"
    if lack := packages.lack(NEEDS[version]):
        return lack
    return trust.obstacle(proof.DESCENT[version], _place(version, device))


def _place(version: Backend, device: torch.device) -> torch.device:
    return CPU if version == "cpu" else device


def compile_ahead(version: Backend, images: Tensor, scale: Tensor) -> None:
    """Compiles a version, or loads it from its cache; prints a notice if that takes long.

    Args:
        version: a result of `choose`.
        images: (N, H, W) or (N, D) uint8, on the device that is used; N may be 1.
        scale: (D,) factors of the pixels, of the type of the weights.
    """
    with notice_if_slow("Compiling the descent, once on this machine (about 5 s) ..."):
        # More than one: Numba and Triton compile once for all numbers of iterations.
        zeros = torch.zeros(16, dtype=torch.int64, device=images.device)
        state = torch.zeros_like(scale), scale.new_zeros(1)
        labels = torch.ones(len(images), dtype=torch.int64, device=images.device)
        nothing = Loss((0, 0, 0), (0, 0, 0))
        sequential_sgd(images, labels, zeros, *state, 0.0, nothing, scale=scale, backend=version)


def _compiled(version: str) -> reference.Module:
    # Imported on first use, since Numba and Triton take a second to load.
    module: reference.Module = importlib.import_module(f"models.kernels.sgd.{version}")
    return module
