"""Folds the constants of scaled tanh activations into the parameters for the compiled code.

A layer amplitude * tanh(slope * (w * x + b)) gives amplitude times what plain tanh gives with
parameters that are multiplied by a factor; the next layer's factor includes the amplitude. So one
kind of network is computed, and its gradients are multiplied by the same factors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from models.kernels.chunks import stretch
from models.kernels.compiled import compiled
from models.kernels.conv_pool.cpu import flat
from models.kernels.conv_pool.memory import Shape, Table
from models.kernels.lanes import LANES
from models.kernels.lenet5.design import Design
from models.kernels.lenet5.head import Head
from models.kernels.lenet5.memory import Net, Parameters
from models.kernels.lenet5.places import array_at, places_of
from models.kernels.simd.vector import load, mul, splat, store


class Arrays(NamedTuple):
    """The arrays at the places of a `Net`, which must be kept alive as long as it is used."""

    parameters: Parameters
    gradients: Parameters
    velocities: Parameters
    folded: Parameters


def arrays_of(
    blocks: tuple[Shape, Table, Shape, Table],
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    velocities: Sequence[Tensor],
    design: Design,
) -> Arrays:
    """The arrays of a network of these sizes and connections, which are used in place."""
    learnt, factors = _named(parameters, design), _factors(design)
    # If the factor is 1, the parameter itself: nothing is copied.
    folded = {
        name: part if factors[name] == 1 else np.empty_like(part)
        for name, part in learnt._asdict().items()
    }
    others = _named(gradients, design), _named(velocities, design)
    return Arrays(learnt, *others, Parameters(**folded | _fixed(blocks, design)))


def net_of(blocks: tuple[Shape, Table, Shape, Table], arrays: Arrays, design: Design) -> Net:
    """A network of these sizes and connections, with its parameters in these arrays."""
    return Net(
        *blocks,
        places_of(arrays.parameters),
        places_of(arrays.gradients),
        places_of(arrays.velocities),
        places_of(arrays.folded),
        np.array([*_factors(design).values()], np.float32),
        Head(design.loss, np.float32(design.amplitude), np.float32(design.rubbish)),
    )


def _named(tensors: Sequence[Tensor], design: Design) -> Parameters:
    """Flat arrays of the tensors; empty for parameters that the design does not have."""
    names = [layer + part for layer in design.layers for part in ("", "_bias")]
    named = dict(zip(names, map(flat, tensors), strict=True))
    return Parameters(*(named.get(name, np.empty(0, np.float32)) for name in Parameters._fields))


def _factors(design: Design) -> dict[str, float]:
    """The factor of each parameter."""
    weight = design.amplitude * design.slope
    factors = {
        name: design.slope if name.endswith("_bias") else weight for name in Parameters._fields
    }
    # No amplitude precedes C1, and no tanh follows the output layer.
    return factors | {"c1": design.slope, "output": design.amplitude, "output_bias": 1.0}


def _fixed(
    blocks: tuple[Shape, Table, Shape, Table], design: Design
) -> dict[str, np.ndarray[Any, Any]]:
    """Constants in place of parameters that are not learnt: pooling averages, and codes."""
    c1, _, c3, _ = blocks
    fixed: dict[str, np.ndarray[Any, Any]] = {}
    if not design.learns_pooling:
        for name, maps in (("s2", c1.outputs), ("s4", c3.outputs)):
            quarter = design.amplitude * design.slope / 4
            fixed[name] = np.full(maps, quarter, np.float32)
            fixed[f"{name}_bias"] = np.zeros(maps, np.float32)
    if design.codes is not None:
        fixed["output"] = flat(design.codes)
        fixed["output_bias"] = np.zeros(len(design.codes), np.float32)
    return fixed


@compiled()
def scale(parts, factors, out, n, count):
    """Multiplies stretch n of `count` of each part by its factor -> out.

    `parts` and `out` are places; if the factor is 1, both are the same memory.
    """
    for place, factor in enumerate(factors):
        if factor != 1:
            part = stretch(array_at(parts, place), n, count)
            product = stretch(array_at(out, place), n, count)
            whole = len(part) // LANES * LANES
            for i in range(0, whole, LANES):
                store(product, i, mul(load(part, i), splat(factor)))
            for i in range(whole, len(part)):
                product[i] = factor * part[i]
