"""Compares the fused block with the reference in float64, for C1 followed by C3.

Triton compiles a block for the sizes of its layer, so LeNet-5's own sizes are compared; two more
blocks stand for all other layers, odd where LeNet-5's are even.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from models.kernels.conv_pool import reference
from models.kernels.conv_pool.operator import fused_two
from models.kernels.table import C3_TABLE, ConnectionTable, connections, full_table
from models.kernels.trust import Errors, Kernel, relative_error


class Sizes(NamedTuple):
    """The sizes of two blocks in a row."""

    image: tuple[int, int, int]
    """Maps, height and width."""
    tables: tuple[ConnectionTable, ConnectionTable]
    paddings: tuple[int, int]


BATCH = 19  # fills neither whole groups nor whole programs
ORIGINAL = Sizes((1, 28, 28), (full_table(1, 6), C3_TABLE), (2, 0))
SIZES = {
    "original C3": ORIGINAL,
    "modern C3": ORIGINAL._replace(tables=(full_table(1, 6), full_table(6, 16))),
    "other sizes": Sizes((2, 15, 18), (((0,), (0, 1), (1,)), ((0, 2), (1,))), (1, 3)),
}
NAMES = ("first weights", "first biases", "second weights", "second biases")


class Problem(NamedTuple):
    """Two blocks in a row, and what they are given."""

    x: Tensor
    """(B, C, H, W)"""
    parts: list[Tensor]
    """Weight and bias of the first, and of the second."""
    tables: list[Tensor]
    paddings: tuple[int, int]

    def on(self, device: torch.device) -> Problem:
        """In float32."""
        parts = [part.float().to(device) for part in self.parts]
        tables = [table.to(device) for table in self.tables]
        return Problem(self.x.float().to(device), parts, tables, self.paddings)


def _problem(sizes: Sizes, batch: int = BATCH) -> Problem:
    """Random, in float64."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    first, second = sizes.tables
    tables = [connections(first, sizes.image[0]), connections(second, len(first))]
    weights = random(len(tables[0]), 5, 5) / 5, random(len(tables[1]), 5, 5) / 12
    parts = [weights[0], random(len(first)), weights[1], random(len(second))]
    return Problem(random(batch, *sizes.image), parts, tables, sizes.paddings)


def _outputs(problem: Problem) -> Tensor:
    x, (weight, bias, weight2, bias2), (table, table2), (padding, padding2) = problem
    if x.dtype == torch.float64:
        maps = reference.conv_pool(x, weight, bias, table, padding)
        return reference.conv_pool(maps, weight2, bias2, table2, padding2)
    return fused_two(x, (weight, bias, table, padding), (weight2, bias2, table2, padding2))


def _answers(device: torch.device) -> Errors:
    errors = {}
    for name, sizes in SIZES.items():
        problem = _problem(sizes)
        with torch.no_grad():
            expected = _outputs(problem)
            errors[name] = relative_error(_outputs(problem.on(device)), expected)
    return errors


def _gradients(device: torch.device) -> Errors:
    errors = {}
    for name, sizes in SIZES.items():
        problem = _problem(sizes)
        # A copy first: what follows makes its parts ask for a gradient.
        actual = _differentiated(problem.on(device))
        expected = _differentiated(problem)
        for part, a, e in zip(NAMES, actual, expected, strict=True):
            errors[f"{name}, {part}"] = relative_error(a, e)
    return errors


def _differentiated(problem: Problem) -> tuple[Tensor, ...]:
    parts = [part.requires_grad_() for part in problem.parts]
    with torch.enable_grad():
        outputs = _outputs(problem)
        # All positive: with cancellation the errors would be those of float32, not of the kernel.
        count, x = outputs.numel(), problem.x
        direction = torch.linspace(0.5, 1.5, count, device=x.device, dtype=x.dtype)
        return torch.autograd.grad((outputs * direction.view(outputs.shape)).sum(), parts)


def rehearse(device: torch.device, *, gradient: bool) -> None:
    """Does once what LeNet-5 will ask for, with one image; its connections and batch are data."""
    problem = _problem(ORIGINAL, 1).on(device)
    if gradient:
        _differentiated(problem)
    else:
        _outputs(problem)


ANSWERS = Kernel("fused convolutional block", _answers, bound=1e-5)
GRADIENT = Kernel("gradient of the fused convolutional block", _gradients, bound=5e-5)
