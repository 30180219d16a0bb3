"""LeNet-5 on CUDA, in Triton: loss and gradient of a mini-batch in eight launches.

Shapes: K mini-batches in memory, B images of one, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
import triton
from torch import Tensor

from models.kernels import doors
from models.kernels.conv_pool import cuda as conv_pool
from models.kernels.distortion import OF_MAP, WAVES, Distortion
from models.kernels.lenet5 import cuda_kernels as kernels
from models.kernels.lenet5.design import SIZE, WIDTHS, Design, check_widths

X, C5, F6 = WIDTHS

WIDTH = 128
COLUMNS = 64
TILE = {"ROWS": 16, "COLUMNS": 64, "IMAGES": 32}


Layer = tuple[Tensor, Tensor, Tensor, int]
"""Weight, bias, connections and padding of a convolutional layer."""


class Laid(Protocol):
    """K consecutive mini-batches of B images in fixed memory, and where their losses go."""

    images: Tensor
    """(K, B, 28, 28) uint8"""
    labels: Tensor
    """(K, B) int64, from 0 to C - 1"""
    numbers: Tensor | None
    """(K, B, `Distortion.numbers`) random numbers for the distortion"""
    waves: Tensor | None
    """(WAVES, 28) waves of its elastic part"""
    shares: Tensor
    """(K,) weight of each image in the loss"""
    losses: Tensor
    """(K,)"""
    k: Tensor
    """(1,) int64: index of the next mini-batch"""


def differentiate(
    laid: Laid,
    layers: tuple[Layer, Layer],
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    design: Design,
    distortion: Distortion,
    *,
    is_rounded: bool,
) -> None:
    """Writes the loss of the next mini-batch, and its gradients.

    Args:
        laid: holds the mini-batch.
        layers: C1 and C3.
        parameters: weight and bias of each layer, in order.
        gradients: receive the gradients, in the shapes of the parameters.
        design: the inputs for the bytes of an image.
        distortion: distortion of the images.
        is_rounded: whether factors of the dense layers' products are rounded to bfloat16.

    Raises:
        TypeError: a parameter of another type.
        ValueError: parameters that do not fit.
    """
    doors.check_parameters([*parameters], [*layers[0][:2], *layers[1][:2]], X)
    check_widths(parameters)
    first, second = layers
    x = _picked(laid, design, distortion)
    maps, slope = conv_pool.forward(x, *first)
    features, slope2 = conv_pool.forward(maps, *second)
    c1_dw, c1_db, c3_dw, c3_db, *dense = gradients
    grad = _dense(laid, features, parameters[4:], dense, is_rounded)
    dmaps = torch.empty_like(maps)
    weight, _, table, padding = second
    part2 = conv_pool.differentiate(grad, maps, weight, table, padding, slope2, dmaps, c3_dw, c3_db)
    weight, _, table, padding = first
    part = conv_pool.differentiate(dmaps, x, weight, table, padding, slope, x[:0], c1_dw, c1_db)
    conv_pool.add_up(part, part2)


def _picked(laid: Laid, design: Design, distortion: Distortion) -> Tensor:
    """The images of the next mini-batch as network inputs (B, 1, 28, 28)."""
    batch = laid.labels.shape[1]
    x = torch.empty(batch, 1, SIZE, SIZE, device=laid.images.device)
    rotation, *others = distortion
    if batch:
        with torch.cuda.device_of(x):  # Triton launches on the current device
            kernels.pick[(batch,)](
                laid.images,
                laid.shares if laid.numbers is None else laid.numbers,
                laid.shares if laid.waves is None else laid.waves,
                laid.k,
                x,
                batch,
                design.unit,
                design.paper,
                math.radians(rotation),
                *map(float, others),
                NUMBERS=0 if laid.numbers is None else distortion.numbers,
                OF_MAP=OF_MAP,
                WAVES=WAVES,
                SIZE=SIZE,
                PIXELS=triton.next_power_of_2(SIZE * SIZE),
            )
    return x


def _dense(
    laid: Laid,
    features: Tensor,
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    is_rounded: bool,
) -> Tensor:
    """Writes the loss and the gradients of C5, F6 and the output; returns that at S4's maps."""
    batch, classes = len(features), len(parameters[-1])
    c5, f6 = features.new_empty(batch, C5), features.new_empty(batch, F6)
    grads = torch.empty_like(c5), torch.empty_like(f6), features.new_empty(batch, classes)
    each, grad = features.new_empty(batch), torch.empty_like(features)
    with torch.cuda.device_of(features):
        if batch:
            kernels.head[(batch,)](
                features,
                laid.labels,
                laid.shares,
                laid.k,
                *parameters,
                c5,
                f6,
                *grads,
                grad,
                each,
                batch,
                classes,
                X=X,
                C5=C5,
                F6=F6,
                WIDTH=WIDTH,
                CLASSES=max(16, triton.next_power_of_2(classes)),
                COLUMNS=COLUMNS,
                IS_ROUNDED=is_rounded,
                num_warps=4,
            )
        kernels.dense_gradients[(_tiles(C5, X) + _tiles(F6, C5) + _tiles(classes, F6),)](
            features,
            c5,
            f6,
            *grads,
            each,
            *gradients,
            laid.losses,
            laid.k,
            batch,
            classes,
            X=X,
            C5=C5,
            F6=F6,
            **TILE,
            IS_ROUNDED=is_rounded,
        )
    return grad


def _tiles(outputs: int, inputs: int) -> int:
    rows: int = triton.cdiv(outputs, TILE["ROWS"])
    columns: int = triton.cdiv(inputs, TILE["COLUMNS"])
    return rows * columns
