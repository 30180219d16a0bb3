"""The pieces of an iteration of LeNet-5 by name, and their numbers of floating-point operations.

The numbers count what is executed: for whole vectors of images and whole tiles of sums, and at
Winograd's points. A multiply-add is two. Pieces without a number mostly move data.

Shapes as in `models/kernels/conv_pool/memory.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from models.kernels.lanes import LANES
from models.kernels.simd.winograd import COUNT, OF_PIXELS, OF_SUMS, PAIRS, STRIP
from models.kernels.sizes import KERNEL, TILE

IMAGES = "images into vectors"
TO_POINTS = ("C1: pixels to the points", "C3: pixels to the points")
CONVOLUTION = ("C1: convolution", "C3: convolution")
SQUASH = ("C1: sums, both tanh, pooling", "C3: sums, both tanh, pooling")
DENSE = "dense layers"
LOSS = "loss"
DENSE_INPUTS = "dense layers: gradient at the inputs"
SLOPES = ("C1: gradient at the sums", "C3: gradient at the sums")
WEIGHTS = ("C1: gradient at the weights", "C3: gradient at the weights")
INPUTS = "C3: gradient at the input"
DENSE_WEIGHTS = "dense layers: gradient at the weights"
SUMS = "sums over the groups"
UPDATE = "update"
REST = "what lies between"


TANH = 21
"""Operations of `simd.tanh`: eight multiply-adds and five more."""

POOL = TANH + 25
"""Operations of `_pool` in conv_pool/forward.py per pixel: four sums, and their derivatives."""


def operations(net: Any, shapes: tuple[Any, ...], batch: int) -> dict[str, int]:
    """Returns the operations of one iteration, by piece.

    Args:
        net: a `models.nets.LeNet5`.
        shapes: sizes and connections of its two blocks, as `conv_pool.cpu.shapes_of` gives them.
        batch: number of images.
    """
    vectors = -(-batch // LANES) * LANES
    counts = {
        name: vectors * count
        for n in (0, 1)
        for name, count in _of_block(n, *shapes[2 * n : 2 * n + 2]).items()
    }
    layers = [layer.weight.shape for layer in (net.c5, net.f6, net.output)]
    squashed = sum(outputs for outputs, _ in layers[:2])
    sums = sum(2 * _whole(outputs, TILE) * inputs + outputs for outputs, inputs in layers)
    counts[DENSE] = vectors * (sums + TANH * squashed)
    inputs_ = sum(2 * _whole(inputs, TILE) * outputs for outputs, inputs in layers)
    counts[DENSE_INPUTS] = vectors * (inputs_ + 4 * squashed)
    counts[DENSE_WEIGHTS] = batch * sum(
        2 * _whole(inputs, LANES) * _whole(outputs, TILE) for outputs, inputs in layers
    )
    counts[UPDATE] = 4 * sum(part.numel() for part in net.parameters())
    return counts


def _of_block(n: int, shape: Any, table: Any) -> dict[str, int]:
    """Counts those of a block for one image, both ways; C1 computes no gradient at its input."""
    rows = 2 * shape.pooled_rows
    taps = 2 * COUNT * len(table.sources) * shape.strips * KERNEL
    strips, lines = shape.strips * shape.outputs, shape.strips * shape.maps * (rows + KERNEL - 1)
    squash = strips * rows * (_transposed(OF_SUMS) + STRIP * TANH)
    counts = {
        TO_POINTS[n]: lines * _evaluated(OF_PIXELS),
        CONVOLUTION[n]: taps * _whole(rows, TILE),
        SQUASH[n]: squash + POOL * shape.features,
        SLOPES[n]: strips * rows * (_evaluated(OF_SUMS) + 2 * STRIP),
        WEIGHTS[n]: taps * rows,
    }
    if n == 1:
        counts[INPUTS] = taps * rows + lines * (_transposed(OF_PIXELS) + STRIP)
    return counts


def _evaluated(matrix: np.ndarray[Any, Any]) -> int:
    """Counts the operations of `_evaluate` in simd/winograd.py."""
    pairs = sum(_sum(matrix[i][n::2]) for i in PAIRS for n in (0, 1)) + 2 * len(PAIRS)
    return _sum(matrix[0]) + pairs + _sum(matrix[-1])


def _transposed(matrix: np.ndarray[Any, Any]) -> int:
    """Counts the operations of `_evaluate_transposed` in simd/winograd.py."""
    kept = [0, *PAIRS, COUNT - 1]
    return 2 * len(PAIRS) + sum(_sum(column) for column in matrix[kept].T)


def _sum(factors: np.ndarray[Any, Any]) -> int:
    """Counts those of a sum of numbers times factors: no products by 1, no terms with 0."""
    nonzero = factors[factors != 0]
    return len(nonzero) - 1 + int((nonzero != 1).sum())


def _whole(count: int, size: int) -> int:
    """Rounds a count up to whole tiles."""
    return -(-count // size) * size
