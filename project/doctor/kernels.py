"""Proves every kernel that can run on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from models.classifier import Classifier
from models.kernels import packages, trust
from models.kernels.conv_pool import proof as of_block
from models.kernels.packages import NEEDS
from models.kernels.sgd import proof as of_descent
from models.learners import compiled, fused
from models.learners.compiled import Compiled
from models.learners.fused import Fused

CPU = torch.device("cpu")


def examine(models: list[Classifier]) -> list[dict[str, Any]]:
    """Proves the kernels of all devices, and the compiled steps of some models, once each.

    Returns:
        For each kernel its name, device, errors by name, their bound, and what is wrong.
    """
    kernels = {(kernel.name, device): kernel for kernel, device in _kernels(models)}
    found = []
    for (name, device), kernel in kernels.items():
        verdict = trust.prove(kernel, device)
        found.append(
            {
                "name": name,
                "device": str(device),
                "errors": dict(verdict.errors),
                "bound": kernel.bound,
                "wrong": verdict.obstacle,
            }
        )
    return found


def _kernels(models: list[Classifier]) -> Iterator[tuple[trust.Kernel, torch.device]]:
    gpus = [torch.device("cuda", number) for number in range(torch.cuda.device_count())]
    for device in (CPU, *gpus):
        if not packages.lack(NEEDS[device.type]):
            yield of_block.ANSWERS, device
            yield of_block.GRADIENT, device
            yield of_descent.DESCENT[device.type], device
    for model in models:
        if Compiled in model.learners and not packages.lack("numba"):
            yield compiled.kernel_of(model), CPU
        if Fused in model.learners and not packages.lack("triton"):
            yield from ((fused.kernel_of(model), gpu) for gpu in gpus)
