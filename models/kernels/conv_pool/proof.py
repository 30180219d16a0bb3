"""Compares the fused block with the reference in float64, for C1 followed by C3."""

from __future__ import annotations

import torch
from torch import Tensor

from models.kernels.conv_pool import reference
from models.kernels.conv_pool.operator import fused_two
from models.kernels.table import C3_TABLE, ConnectionTable, connections, full_table
from models.kernels.trust import Errors, Kernel, relative_error

BATCH = 19  # fills neither whole groups nor whole programs
TABLES = {"original": C3_TABLE, "modern": full_table(6, 16)}
NAMES = ("C1's weights", "C1's biases", "C3's weights", "C3's biases")


def _problem(table: ConnectionTable) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Images (B, 1, 28, 28), weights and biases of both blocks, and their tables, in float64."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    tables = [connections(full_table(1, 6), 1), connections(table, 6)]
    parts = [random(6, 5, 5) / 5, random(6), random(len(tables[1]), 5, 5) / 12, random(16)]
    return random(BATCH, 1, 28, 28), parts, tables


def _outputs(x: Tensor, parts: list[Tensor], tables: list[Tensor]) -> Tensor:
    weight, bias, weight2, bias2 = parts
    if x.dtype == torch.float64:
        maps = reference.conv_pool(x, weight, bias, tables[0], 2)
        return reference.conv_pool(maps, weight2, bias2, tables[1], 0)
    return fused_two(x, (weight, bias, tables[0], 2), (weight2, bias2, tables[1], 0))


def _answers(device: torch.device) -> Errors:
    errors = {}
    for name, table in TABLES.items():
        x, parts, tables = _problem(table)
        with torch.no_grad():
            expected = _outputs(x, parts, tables)
            actual = _outputs(
                x.float().to(device), [p.float().to(device) for p in parts], _to(device, tables)
            )
        errors[f"{name} C3"] = relative_error(actual, expected)
    return errors


def _gradients(device: torch.device) -> Errors:
    errors = {}
    for name, table in TABLES.items():
        x, parts, tables = _problem(table)
        expected = _differentiated(x, parts, tables)
        x, parts = x.float().to(device), [part.float().to(device) for part in parts]
        actual = _differentiated(x, parts, _to(device, tables))
        for part, a, e in zip(NAMES, actual, expected, strict=True):
            errors[f"{name} C3, {part}"] = relative_error(a, e)
    return errors


def _differentiated(x: Tensor, parts: list[Tensor], tables: list[Tensor]) -> tuple[Tensor, ...]:
    parts = [part.requires_grad_() for part in parts]
    with torch.enable_grad():
        outputs = _outputs(x, parts, tables)
        # All positive: with cancellation the errors would be those of float32, not of the kernel.
        direction = torch.linspace(0.5, 1.5, outputs.numel(), device=x.device, dtype=x.dtype)
        return torch.autograd.grad((outputs * direction.view(outputs.shape)).sum(), parts)


def _to(device: torch.device, tensors: list[Tensor]) -> list[Tensor]:
    return [tensor.to(device) for tensor in tensors]


ANSWERS = Kernel("fused convolutional block", _answers, bound=1e-5)
GRADIENT = Kernel("gradient of the fused convolutional block", _gradients, bound=5e-5)
