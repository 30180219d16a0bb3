"""The data that LeNet-5's compiled code works on: parameters, sizes, mini-batches and memory.

The layers have the paper's names: C1 and S2 are the first block, C3 and S4 the second, and C5, F6
and the output are dense. Arrays are flat; comments give shapes: B images, G groups of L, N images
to choose from, T threads; the widths are those of LeNet-5 for 28 x 28 pixels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from models.kernels.chunks import most_chunks
from models.kernels.compiled import compiled
from models.kernels.conv_pool.forward import new_taps
from models.kernels.conv_pool.memory import Scratch, Shape, Table, new_scratches
from models.kernels.conv_pool.pair import Sums, kept, new_sums
from models.kernels.lanes import LANES, empty, zeros
from models.kernels.lenet5.distort import BENDS, FRAME
from models.kernels.lenet5.head import Head


class Parameters(NamedTuple):
    """LeNet-5's parameters, or their gradients; each is flat, and empty if a network has none."""

    c1: np.ndarray[Any, Any]
    c1_bias: np.ndarray[Any, Any]
    s2: np.ndarray[Any, Any]
    """(6,) coefficients of the sums of 2x2 pixels"""
    s2_bias: np.ndarray[Any, Any]
    c3: np.ndarray[Any, Any]
    c3_bias: np.ndarray[Any, Any]
    s4: np.ndarray[Any, Any]
    s4_bias: np.ndarray[Any, Any]
    c5: np.ndarray[Any, Any]
    c5_bias: np.ndarray[Any, Any]
    f6: np.ndarray[Any, Any]
    f6_bias: np.ndarray[Any, Any]
    output: np.ndarray[Any, Any]
    output_bias: np.ndarray[Any, Any]


class Net(NamedTuple):
    """The network that is trained."""

    c1: Shape
    c1_table: Table
    c3: Shape
    c3_table: Table
    parameters: np.ndarray[Any, Any]
    """(14, 2) places of the parameters; this and the next three are explained in `places.py`"""
    gradients: np.ndarray[Any, Any]
    """Places of the gradients"""
    velocities: np.ndarray[Any, Any]
    """Places of the momentum buffers, which are read and written only with momentum"""
    folded: np.ndarray[Any, Any]
    """Places of the parameters that the code computes with; see `folding.py`"""
    factors: np.ndarray[Any, Any]
    """(14,) factors from parameters to folded ones"""
    head: Head


class Batch(NamedTuple):
    """A mini-batch, or several consecutive ones, chosen from images with labels."""

    images: np.ndarray[Any, Any]
    """(N, 28, 28)"""
    unit: np.float32
    offset: np.float32
    """The input for a pixel v is v / unit + offset"""
    limits: np.ndarray[Any, Any]
    """(5,) limits of the distortion: radians, scale, shear, pixels, elastic pixels"""
    labels: np.ndarray[Any, Any]
    """(N,)"""
    targets: np.ndarray[Any, Any]
    """(N, 10) class probabilities; empty if the labels are the targets"""
    numbers: np.ndarray[Any, Any]
    """(B, n) random numbers from -1 to 1 for the distortion; (0, 0) without one"""
    order: np.ndarray[Any, Any]
    """(B,) indices of the images"""
    share: np.float32
    """Weight of each image in the loss"""


class Steps(NamedTuple):
    """K steps, for consecutive mini-batches in one `Batch`."""

    ends: np.ndarray[Any, Any]
    """(K + 1,) where each mini-batch begins, and where the last one ends"""
    shares: np.ndarray[Any, Any]
    """(K,) weight of each image in the loss of its mini-batch"""
    rates: np.ndarray[Any, Any]
    """(K,) learning rates; empty if no steps are taken"""


class Rows(NamedTuple):
    """The values from which the gradients of the dense layers are summed over the batch."""

    s4: np.ndarray[Any, Any]
    """(B, 400) the input of C5, image by image"""
    c5: np.ndarray[Any, Any]
    """(B, 120) the input of F6"""
    f6: np.ndarray[Any, Any]
    """(B, 84) the input of the output layer"""
    d_c5: np.ndarray[Any, Any]
    """(G, 120, L) the gradient at the pre-activations of C5"""
    d_f6: np.ndarray[Any, Any]
    """(G, 84, L)"""
    d_output: np.ndarray[Any, Any]
    """(G, 10, L)"""


class Group(NamedTuple):
    """A thread's memory for the forward and backward pass of one group of images."""

    frame: np.ndarray[Any, Any]
    """(31, 32) an image to be distorted, with zeros around it"""
    bends: np.ndarray[Any, Any]
    """(2 + 2 WAVES, 28) the displacements of a row of its pixels; see `distort.py`"""
    picked: np.ndarray[Any, Any]
    """(L, 28, 28) the images as inputs"""
    state: np.ndarray[Any, Any]
    """What the two blocks need for the backward pass"""
    s4: np.ndarray[Any, Any]
    """(400, L)"""
    c5: np.ndarray[Any, Any]
    """(120, L)"""
    f6: np.ndarray[Any, Any]
    """(84, L)"""
    output: np.ndarray[Any, Any]
    """(10, L) the logits"""
    s4_gradient: np.ndarray[Any, Any]
    """(400, L) the gradient at s4"""
    c5_gradient: np.ndarray[Any, Any]
    """(120, L)"""
    f6_gradient: np.ndarray[Any, Any]
    """(84, L)"""


class Memory(NamedTuple):
    """The memory of all threads, which all iterations reuse."""

    c1: Scratch
    """Every array with one more dimension in front, (T + 1, ...): the last is for a group that two
    threads may share"""
    c3: Scratch
    groups: Group
    """Likewise (T + 1, ...)"""
    c1_taps: np.ndarray[Any, Any]
    """(8, 6, 5) the weights at the points"""
    c3_taps: np.ndarray[Any, Any]
    """(8, 60, 5)"""
    c1_sums: np.ndarray[Any, Any]
    """(8, 6, 5) the gradients at the points"""
    c3_sums: np.ndarray[Any, Any]
    """(8, 60, 5)"""
    vectors: Sums
    """Each thread's sums, (T, ...)"""
    sums: Sums
    """Each chunk's sums"""
    rows: Rows


def new_memory(
    net: Net, parts: Parameters, folded: Parameters, threads: int, images: int
) -> Memory:
    """Memory for that many threads, and mini-batches of at most that many images.

    `parts` are the learnt parameters, `folded` those that the code computes with.
    """
    # Biases, and coefficients and offsets if they are learnt.
    numbers = len(parts.c1_bias) + len(parts.s2) + len(parts.s2_bias)
    numbers2 = len(parts.c3_bias) + len(parts.s4) + len(parts.s4_bias)
    shapes, places = (net.c1, net.c3), threads + 1
    c1, c3 = (new_scratches(shape, places, True, len(parts.s2) > 0) for shape in shapes)
    c1_taps, c3_taps = new_taps(parts.c1), new_taps(parts.c3)
    return Memory(
        c1,
        c3,
        new_groups(places, net.c1, net.c3, folded),
        c1_taps,
        c3_taps,
        new_taps(parts.c1),
        new_taps(parts.c3),
        *new_sums(threads, most_chunks(-(-images // LANES)), numbers, c1_taps, numbers2, c3_taps),
        new_rows(images, net.c3, folded),
    )


@compiled(inline="always")
def rows_of(rows, batch, parameters):
    """The rows of a mini-batch of that many images."""
    groups = -(-batch // LANES)
    c5, f6 = len(parameters.c5_bias), len(parameters.f6_bias)
    s4 = len(parameters.c5) // c5
    return Rows(
        rows.s4[: batch * s4],
        rows.c5[: batch * c5],
        rows.f6[: batch * f6],
        rows.d_c5[: groups * c5 * LANES],
        rows.d_f6[: groups * f6 * LANES],
        rows.d_output[: groups * len(parameters.output_bias) * LANES],
    )


def new_rows(batch: int, c3: Shape, parameters: Parameters) -> Rows:
    """Memory for a batch of that many images."""
    groups = -(-batch // LANES)
    c5, f6 = len(parameters.c5_bias), len(parameters.f6_bias)
    return Rows(
        empty(batch * c3.features),
        empty(batch * c5),
        empty(batch * f6),
        empty(groups * c5 * LANES),
        empty(groups * f6 * LANES),
        empty(groups * len(parameters.output_bias) * LANES),
    )


def new_groups(threads: int, c1: Shape, c3: Shape, parameters: Parameters) -> Group:
    """The memory of all threads: every array with one more dimension in front."""
    pixels = c1.maps * c1.height * c1.width
    s4, c5, f6 = c3.features, len(parameters.c5_bias), len(parameters.f6_bias)
    return Group(
        zeros(threads, FRAME),
        zeros(threads, BENDS),
        empty(threads, pixels * LANES),
        empty(threads, kept(c1, c3)),
        empty(threads, s4 * LANES),
        empty(threads, c5 * LANES),
        empty(threads, f6 * LANES),
        empty(threads, len(parameters.output_bias) * LANES),
        empty(threads, s4 * LANES),
        empty(threads, c5 * LANES),
        empty(threads, f6 * LANES),
    )


@compiled()
def group_of(groups, t):
    """The memory of thread t."""
    return Group(
        groups.frame[t],
        groups.bends[t],
        groups.picked[t],
        groups.state[t],
        groups.s4[t],
        groups.c5[t],
        groups.f6[t],
        groups.output[t],
        groups.s4_gradient[t],
        groups.c5_gradient[t],
        groups.f6_gradient[t],
    )
