"""Compares the compiled loop over single images with autograd in float64."""

from __future__ import annotations

import importlib
from functools import partial

import torch
from torch import Tensor

from models.kernels.sgd import reference
from models.kernels.trust import Errors, Kernel, relative_error
from models.losses import LOSSES

COUNT, PIXELS, ITERATIONS, RUNS = 20, 784, 16, 2


def _problem() -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (COUNT, PIXELS), generator=generator, dtype=torch.uint8)
    labels = 2 * torch.randint(0, 2, (COUNT,), generator=generator) - 1
    order = torch.randint(0, COUNT, (RUNS, ITERATIONS), generator=generator)
    weight = torch.randn(RUNS, PIXELS, dtype=torch.float64, generator=generator) / 28
    bias = torch.randn(RUNS, dtype=torch.float64, generator=generator)
    return images, labels, order, weight, bias


def _errors(device: torch.device, version: str) -> Errors:
    errors = {}
    compiled = importlib.import_module(f"models.kernels.sgd.{version}")
    for name, loss in LOSSES.items():
        found = []
        for module, dtype, place in (
            (reference, torch.float64, torch.device("cpu")),
            (compiled, torch.float32, device),
        ):
            *data, weight, bias = (tensor.to(place) for tensor in _problem())
            state = weight.to(dtype), bias.to(dtype)
            rates = torch.full((ITERATIONS,), 0.03, dtype=dtype, device=place)
            scale = torch.full((PIXELS,), 1 / 255, dtype=dtype, device=place)
            losses = module.sequential_sgd(*data, *state, rates, loss, scale)
            found.append((losses, *state))
        for part, expected, actual in zip(("losses", "weights", "biases"), *found, strict=True):
            errors[f"{name}, {part}"] = relative_error(actual, expected)
    return errors


DESCENT = {
    version: Kernel("compiled descent", partial(_errors, version=version), bound=1e-4)
    for version in ("cpu", "cuda")
}
