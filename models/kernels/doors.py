"""Argument checks of compiled code, which does not check bounds and would read other memory.

Shapes, types and devices are checked without reading the values, for fake tensors too. Values are
read in every call on a CPU; `looks` and `check_labels_once` avoid synchronising with a GPU.

A shape is a tuple of sizes, in which a letter stands for any size: B images, G groups, C
input maps, M output maps, H W pixels, P connections, N images held, K mini-batches, S runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.kernels.lanes import LANES, MOST
from models.kernels.looks import extremes
from models.kernels.sizes import KERNEL, TILE, pooled_size

Shape = tuple[int | str, ...]

IMAGES: Shape = ("B", "C", "H", "W")
GROUPS: Shape = ("G", "C", "H", "W", LANES)

LAYERS = ("c1", "c3", "c5", "f6", "output")
LAYERS_OF_1998 = ("c1", "s2", "c3", "s4", "c5", "f6")
"""Layers with parameters, in order; named as in `nets.LeNet5` and `nets.LeNet1998`."""


def check_tensor(
    name: str,
    value: Tensor,
    dtype: torch.dtype,
    shape: Shape,
    device: torch.device | None = None,
) -> None:
    """Refuses a tensor of another type or shape, or on another device if one is given.

    Raises:
        TypeError: the value is not a tensor, or has another type.
        ValueError: it has another shape or device.

    >>> check_tensor("bias", torch.zeros(3), torch.float32, ("M", 5))
    Traceback (most recent call last):
    ValueError: expected bias of shape (M, 5), got (3)
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"expected {name} as a tensor, got {type(value).__name__}")
    if value.dtype != dtype:
        raise TypeError(f"expected {name} of {_plain(dtype)}, got {_plain(value.dtype)}")
    if device is not None and value.device != device:
        raise ValueError(f"expected {name} on {device}, got {value.device}")
    if not _fits(value.shape, shape):
        raise ValueError(f"expected {name} of shape {_sizes(shape)}, got {_sizes(value.shape)}")


def _fits(sizes: Sequence[int], shape: Shape) -> bool:
    if len(sizes) != len(shape):
        return False
    # A loop, since a generator takes as long as all else in `check_tensor`.
    for size, wanted in zip(sizes, shape, strict=True):
        if size != wanted and not isinstance(wanted, str):
            return False
    return True


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _sizes(shape: Sequence[int | str]) -> str:
    return f"({', '.join(map(str, shape))})"


def check_range(name: str, values: Tensor, low: int, high: int) -> None:
    """Refuses values below `low` or above `high`.

    Raises:
        ValueError: a value is out of range.

    >>> check_range("labels", torch.tensor([3, 10]), 0, 9)
    Traceback (most recent call last):
    ValueError: expected labels from 0 to 9, got 10
    """
    for value in extremes(values):
        if not low <= value <= high:
            raise ValueError(f"expected {name} from {low} to {high}, got {value}")


def check_labels(labels: Tensor, allowed: Sequence[int], images: Tensor) -> None:
    """Refuses labels that are not in `allowed`, which ascends, or are not one for each image.

    Raises:
        TypeError: they are not int64.
        ValueError: another number or device of them, or a label that is not allowed.

    >>> check_labels(torch.tensor([1, -1, 0]), (-1, 1), torch.zeros(3, 28, 28))
    Traceback (most recent call last):
    ValueError: expected labels of -1 or 1, got 0
    """
    check_tensor("labels", labels, torch.int64, (len(images),), images.device)
    _look(labels, allowed)


def check_targets(targets: Tensor, allowed: Sequence[int], images: Tensor) -> None:
    """Refuses targets other than one label, or a probability of each label, for each image.

    Raises:
        TypeError: they are neither int64 nor float32.
        ValueError: another number or device of them, or a label that is not allowed.

    >>> check_targets(torch.ones(3, 9), range(10), torch.zeros(3, 28, 28))
    Traceback (most recent call last):
    ValueError: expected targets of shape (3, 10), got (3, 9)
    """
    if targets.is_floating_point():
        shape = len(images), len(allowed)
        check_tensor("targets", targets, torch.float32, shape, images.device)
    else:
        check_labels(targets, allowed, images)


def check_labels_once(labels: Tensor, allowed: Sequence[int], images: Tensor) -> None:
    """As `check_labels`, but reads each version of a tensor once: no kernel indexes by these."""
    check_tensor("labels", labels, torch.int64, (len(images),), images.device)
    if labels.is_inference():  # it has no version
        _look(labels, allowed)
    else:
        _look_once(labels, labels._version, allowed)


def _look(labels: Tensor, allowed: Sequence[int]) -> None:
    if isinstance(allowed, range):
        check_range("labels", labels, allowed[0], allowed[-1])
        return
    wrong = labels[~torch.isin(labels, torch.tensor(allowed, device=labels.device))]
    if len(wrong):
        known = " or ".join(map(str, allowed))
        raise ValueError(f"expected labels of {known}, got {wrong[0].item()}")


@lru_cache(maxsize=8)
def _look_once(labels: Tensor, version: int, allowed: Sequence[int]) -> None:
    _look(labels, allowed)


def check_images(
    images: Tensor, pixels: Shape, order: Tensor, device: torch.device | None = None
) -> None:
    """Refuses images that are not (N, *pixels) bytes, and an order (n,) beyond their number.

    Raises:
        TypeError: pixels that are not bytes, or an order that is not int64.
        ValueError: another size or device, or an image that does not exist.
    """
    check_tensor("images", images, torch.uint8, ("N", *pixels), device)
    check_tensor("order", order, torch.int64, ("n",), images.device)
    check_range("order", order, 0, len(images) - 1)


def check_steps(sizes: np.ndarray[Any, Any], shares: Tensor, rates: Tensor, images: int) -> None:
    """Refuses sizes (K,) that do not add up to the images, and shares or rates of other shapes.

    Raises:
        TypeError: sizes that are not an array of int64.
        ValueError: a negative size, another sum, or another shape.
    """
    if not isinstance(sizes, np.ndarray) or sizes.dtype != np.int64:
        got = getattr(sizes, "dtype", type(sizes).__name__)
        raise TypeError(f"expected sizes as an array of int64, got {got}")
    if sizes.ndim != 1:
        raise ValueError(f"expected sizes of shape (K), got {_sizes(sizes.shape)}")
    check_tensor("shares", shares, shares.dtype, sizes.shape)
    check_tensor("rates", rates, rates.dtype, sizes.shape)
    if sizes.min(initial=0) < 0 or sizes.max(initial=0) > images or sizes.sum() != images:
        raise ValueError(f"expected sizes that add up to {images} images, got {sizes.tolist()}")


def check_conv_pool(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    connections: Tensor,
    padding: int,
    layout: Shape = IMAGES,
) -> None:
    """Refuses arguments of the fused block that do not fit, except values of `connections`.

    Raises:
        TypeError: an argument of another type.
        ValueError: shapes or devices that do not fit, a negative padding.
    """
    check_tensor("x", x, torch.float32, layout)
    check_tensor("connections", connections, torch.int64, ("P", 2), x.device)
    check_tensor("weight", weight, torch.float32, (len(connections), KERNEL, KERNEL), x.device)
    check_tensor("bias", bias, torch.float32, ("M",), x.device)
    if padding < 0:
        raise ValueError(f"expected padding of 0 or more, got {padding}")


def check_conv_pool_gradient(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    connections: Tensor,
    padding: int,
    slope: Tensor,
    layout: Shape = IMAGES,
) -> None:
    """Refuses arguments of the fused block's gradient that do not fit.

    Raises:
        TypeError: an argument of another type.
        ValueError: shapes or devices that do not fit, a negative padding.
    """
    check_tensor("slope", slope, torch.float32, layout)
    outputs = slope.shape[1]
    check_conv_pool(x, weight, x.new_empty(outputs), connections, padding, layout)
    batch, _, height, width, *lanes = x.shape
    rows, columns = pooled_size(height, width, padding)
    sums, pooled = (2 * rows, 2 * columns), (rows, columns)
    check_tensor("slope", slope, torch.float32, (batch, outputs, *sums, *lanes), x.device)
    check_tensor("grad", grad, torch.float32, (batch, outputs, *pooled, *lanes), x.device)


def check_connections(connections: Tensor, outputs: int, inputs: int) -> None:
    """Refuses pairs (P, 2) of output and input map that do not exist, or are not in order.

    Raises:
        ValueError: such a pair, or an output map without one.

    >>> check_connections(torch.tensor([[0, 0], [1, 6]]), outputs=2, inputs=6)
    Traceback (most recent call last):
    ValueError: expected input maps in connections from 0 to 5, got 6
    """
    to, source = connections.unbind(1)
    check_range("output maps in connections", to, 0, outputs - 1)
    check_range("input maps in connections", source, 0, inputs - 1)
    if (to.diff() < 0).any():
        raise ValueError(f"expected connections sorted by output map, got {to.tolist()}")
    connected = len(torch.unique(to))
    if not 0 < connected == outputs:
        raise ValueError(f"expected connections of {outputs} output maps, got {connected}")


def check_margin(margin: int, padding: int) -> None:
    """Refuses padding together with a margin of paper, since one frame holds either.

    Raises:
        ValueError: both are more than 0.
    """
    if margin and padding:
        raise ValueError(f"expected no padding inside a margin of {margin}, got {padding}")


def check_parameters(
    parameters: Sequence[Tensor],
    convolutions: Sequence[Tensor],
    features: int,
    codes: Tensor | None = None,
) -> None:
    """Refuses LeNet-5's parameters, or their gradients, that do not fit; both are written in place.

    Args:
        parameters: weight and bias of each layer that has parameters.
        convolutions: weight and bias of C1 and of C3.
        features: number of C5's inputs.
        codes: what F6's output is compared with, in the network of 1998.

    Raises:
        TypeError: a tensor of another type.
        ValueError: shapes or devices that do not fit, a dense layer that is too narrow for the
            kernels, or one that is not contiguous.
    """
    layers = LAYERS if codes is None else LAYERS_OF_1998
    names = [f"{layer}.{part}" for layer in layers for part in ("weight", "bias")]
    if len(parameters) != len(names):
        raise ValueError(f"expected {len(names)} parameters, got {len(parameters)}")
    named = dict(zip(names, parameters, strict=True))
    dense = [layer for layer in layers if layer in ("c5", "f6", "output")]
    widths = [features, *(named[f"{layer}.bias"].numel() for layer in dense)]
    device = convolutions[0].device
    if codes is not None:
        check_tensor("codes", codes, torch.float32, ("K", widths[-1]), device)
        widths.append(len(codes))
    if min(widths) < TILE:
        raise ValueError(f"expected dense layers of {TILE} numbers or more, got {min(widths)}")
    if min(widths[:-1]) < MOST:
        raise ValueError(f"expected dense layers that read {MOST} or more, got {min(widths[:-1])}")
    shapes = _shapes_of(convolutions)
    for layer, (inputs, outputs) in zip(dense, pairwise(widths), strict=False):
        shapes[f"{layer}.weight"], shapes[f"{layer}.bias"] = (outputs, inputs), (outputs,)
    for name, part in named.items():
        check_tensor(name, part, torch.float32, shapes[name], device)
        if not part.is_contiguous():
            raise ValueError(f"expected {name} to be contiguous, got strides {part.stride()}")


def _shapes_of(convolutions: Sequence[Tensor]) -> dict[str, Shape]:
    """The shapes of the parameters of C1, S2, C3 and S4."""
    c1, c1_bias, c3, c3_bias = (tuple(part.shape) for part in convolutions)
    return {
        "c1.weight": c1,
        "c1.bias": c1_bias,
        "s2.weight": c1_bias,
        "s2.bias": c1_bias,
        "c3.weight": c3,
        "c3.bias": c3_bias,
        "s4.weight": c3_bias,
        "s4.bias": c3_bias,
    }


def check_descent(
    images: Tensor,
    labels: Tensor,
    order: Tensor,
    weight: Tensor,
    bias: Tensor,
    lr: Tensor,
    scale: Tensor,
) -> None:
    """Refuses arguments of `sgd` that do not fit; shapes as in `sgd.reference.sequential_sgd`.

    Raises:
        TypeError: an argument of another type.
        ValueError: shapes or devices that do not fit, an image that does not exist, a label other
            than -1 and +1, runs that share their weights.
    """
    if not weight.is_floating_point():
        raise TypeError(f"expected weight of a floating type, got {_plain(weight.dtype)}")
    check_tensor("images", images, torch.uint8, ("N", "D"), weight.device)
    check_tensor("order", order, torch.int64, ("S", "K"), weight.device)
    (_, size), (runs, iterations) = images.shape, order.shape
    check_tensor("weight", weight, weight.dtype, (runs, size))
    check_tensor("bias", bias, weight.dtype, (runs,), weight.device)
    check_tensor("lr", lr, weight.dtype, (iterations,), weight.device)
    check_tensor("scale", scale, weight.dtype, (size,), weight.device)
    if not size:
        raise ValueError("expected images of one pixel or more, got none")
    for name, state in (("weight", weight), ("bias", bias)):
        if any(n > 1 and not step for n, step in zip(state.shape, state.stride(), strict=True)):
            raise ValueError(f"expected {name} with memory of its own, got an expanded tensor")
    check_range("order", order, 0, len(images) - 1)
    check_labels_once(labels, (-1, 1), images)
