"""Chooses which version of the block runs for a device, a dtype and a backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from models.kernels import packages, trust
from models.kernels.conv_pool import composite, proof, reference
from models.kernels.conv_pool.operator import fused
from models.kernels.packages import NEEDS
from models.kernels.sizes import KERNEL

Backend = Literal["auto", "composite", "reference", "cpu", "cuda"]
Version = Callable[[Tensor, Tensor, Tensor, Tensor, int], Tensor]

# All take (x, weight, bias, connections, padding), as `reference.conv_pool` documents them.
CONV_POOL: dict[str, Version] = {
    "reference": reference.conv_pool,
    "composite": composite.conv_pool,
    "cpu": fused,
    "cuda": fused,
}


def check(backend: str) -> str:
    """Returns `backend`, if it can run here.

    Raises:
        ValueError: there is no such version, or something that it needs is missing.
    """
    if backend not in ("auto", *CONV_POOL):
        known = ", ".join(["auto", *CONV_POOL])
        raise ValueError(f"backend must be one of {known}, got {backend!r}")
    if obstacle := _obstacle(backend):
        raise ValueError(f"backend {backend} cannot run: {obstacle}")
    return backend


def _obstacle(backend: str) -> str | None:
    if backend == "cuda" and not torch.cuda.is_available():
        return "torch sees no CUDA device"
    return packages.lack(NEEDS[backend]) if backend in NEEDS else None


def distrust(device: torch.device) -> str | None:
    """Why the fused version of a device must not run; a GPU's is proved before its first use.

    The CPU's takes a quarter of a minute to compile, so only `compile_ahead` proves it.
    """
    if lack := packages.lack(NEEDS[device.type]):
        trust.tell(proof.ANSWERS, device, lack)
        return lack
    is_due = device.type != "cpu"
    return trust.obstacle(proof.ANSWERS, device, proving=is_due) or trust.obstacle(
        proof.GRADIENT, device, proving=is_due
    )


def choose(
    backend: str,
    device: torch.device,
    dtype: torch.dtype,
    kernel_size: int = KERNEL,
    padding: int = 0,
) -> str:
    """The version that runs: a fused one if one applies, else composite.

    Args:
        backend: the requested version, or auto.
        device: device of the tensors.
        dtype: type of the tensors; the fused versions compute in float32, outside autocast.
        kernel_size: the fused versions support 5.
        padding: the fused versions support 0 to 4.
    """
    if backend in ("reference", "composite"):
        return backend
    applies = (
        dtype == torch.float32
        and not _is_transformed()
        and kernel_size == KERNEL
        and padding < KERNEL
        and not torch.is_autocast_enabled(device.type)
        and backend in ("auto", device.type)
        and device.type in NEEDS
        and distrust(device) is None
    )
    return device.type if applies else "composite"


def _is_transformed() -> bool:
    """Whether torch is tracing, transforming by torch.func or differentiating in forward mode.

    The fused versions support none of these.
    """
    return (
        torch._C._get_tracing_state() is not None
        or torch.onnx.is_in_onnx_export()
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch.autograd.forward_ad._current_level >= 0
    )


# As `torch.compiler.assume_constant_result`, without importing the compiler. That of torch 2.6
# cannot trace these functions, so it calls them instead.
_is_transformed._dynamo_marked_constant = True  # type: ignore[attr-defined]


def compile_ahead(device: torch.device, *, gradient: bool) -> None:
    """Compiles the fused kernel of a device, or loads it from its cache, before anything is timed.

    Compiles for the sizes of LeNet-5's layers; on a GPU a block of other sizes is compiled at its
    first call. Proves the block first, if that is still due.

    Args:
        device: the device that it will run on.
        gradient: whether to compile the backward pass too.
    """
    if trust.obstacle(proof.ANSWERS, device) or (
        gradient and trust.obstacle(proof.GRADIENT, device)
    ):
        return
    proof.rehearse(device, gradient=gradient)
