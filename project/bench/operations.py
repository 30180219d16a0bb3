"""The pieces of an iteration of LeNet-5 by name, and how many floating-point operations they are.

Those that are done: for whole vectors of images and whole tiles of sums, and at Winograd's
points. A multiply-add is two. Pieces without a number mostly move data.

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
"""Of `simd.tanh`: eight multiply-adds and five more"""

POOL = TANH + 25
"""Of `_pool` in conv_pool/forward.py, a pixel: four sums, and their derivatives"""


def operations(net: Any, shapes: tuple[Any, ...], batch: int) -> dict[str, int]:
    """Of one iteration.

    Args:
        net: a `models.nets.LeNet5`.
        shapes: sizes and connections of its two blocks, as `conv_pool.cpu.shapes_of` gives them.
        batch: images.
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
    """Of one image there and back; the first block computes no gradient at its input."""
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
    """Of `_evaluate` in simd/winograd.py."""
    pairs = sum(_sum(matrix[i][n::2]) for i in PAIRS for n in (0, 1)) + 2 * len(PAIRS)
    return _sum(matrix[0]) + pairs + _sum(matrix[-1])


def _transposed(matrix: np.ndarray[Any, Any]) -> int:
    """Of `_evaluate_transposed` there."""
    kept = [0, *PAIRS, COUNT - 1]
    return 2 * len(PAIRS) + sum(_sum(column) for column in matrix[kept].T)


def _sum(factors: np.ndarray[Any, Any]) -> int:
    """Of a sum of numbers times factors: no product by 1, and nothing of what counts 0 times."""
    nonzero = factors[factors != 0]
    return len(nonzero) - 1 + int((nonzero != 1).sum())


def _whole(count: int, size: int) -> int:
    """So many, up to whole tiles."""
    return -(-count // size) * size
