"""What LeNet-5's compiled code is handed: parameters, sizes, a mini-batch, and memory.

The layers have the paper's names: C1 and S2 are the first block, C3 and S4 the second, and C5, F6
and the output are dense. Arrays are flat; comments give shapes: B images, G groups of L, N images
to choose from, T threads; the widths are those of LeNet-5 for 28 x 28 pixels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from models.kernels.compiled import compiled
from models.kernels.conv_pool.forward import new_taps
from models.kernels.conv_pool.memory import Scratch, Shape, Table, new_scratches
from models.kernels.conv_pool.pair import Sums, kept, new_sums
from models.kernels.lanes import LANES, empty, zeros
from models.kernels.lenet5.distort import BENDS, FRAME
from models.kernels.lenet5.head import Head
from models.kernels.stretches import most_chunks


class Parameters(NamedTuple):
    """LeNet-5's, or their gradients; each flat, and empty where a net has none."""

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
    """The net that is trained."""

    c1: Shape
    c1_table: Table
    c3: Shape
    c3_table: Table
    parameters: np.ndarray[Any, Any]
    """(14, 2) where they lie; this and the next three as `places.py` says"""
    gradients: np.ndarray[Any, Any]
    """Where the gradients go"""
    velocities: np.ndarray[Any, Any]
    """What momentum keeps of the steps before; read and written only where there is some"""
    folded: np.ndarray[Any, Any]
    """What is computed with, where `folding.py` puts it"""
    factors: np.ndarray[Any, Any]
    """(14,) of folded to parameters, in their order"""
    head: Head


class Batch(NamedTuple):
    """A mini-batch, or several one behind the other, chosen from images with labels."""

    images: np.ndarray[Any, Any]
    """(N, 28, 28)"""
    unit: np.float32
    offset: np.float32
    """A pixel v is v / unit + offset to the net"""
    limits: np.ndarray[Any, Any]
    """(5,) how far images are distorted: radians, scale, shear, pixels, elastic pixels"""
    labels: np.ndarray[Any, Any]
    """(N,)"""
    targets: np.ndarray[Any, Any]
    """(N, 10) how probable each class shall be; (0, 10) where the labels say it"""
    numbers: np.ndarray[Any, Any]
    """(B, n) from -1 to 1, which say how far each one is; (0, 0) where none is"""
    order: np.ndarray[Any, Any]
    """(B,) which images"""
    share: np.float32
    """Weight of each image in the loss"""


class Steps(NamedTuple):
    """K steps, for mini-batches that are one behind the other in a `Batch` of them all."""

    ends: np.ndarray[Any, Any]
    """(K + 1,) where each mini-batch begins, and the last one ends"""
    shares: np.ndarray[Any, Any]
    """(K,) weight of each image in the loss of its mini-batch"""
    rates: np.ndarray[Any, Any]
    """(K,) learning rates, or none"""


class Rows(NamedTuple):
    """What the gradients at the dense layers are sums of, over the batch."""

    s4: np.ndarray[Any, Any]
    """(B, 400) the input of C5, image by image"""
    c5: np.ndarray[Any, Any]
    """(B, 120) the input of F6"""
    f6: np.ndarray[Any, Any]
    """(B, 84) the input of the output layer"""
    d_c5: np.ndarray[Any, Any]
    """(G, 120, L) the gradient at the sums of C5"""
    d_f6: np.ndarray[Any, Any]
    """(G, 84, L)"""
    d_output: np.ndarray[Any, Any]
    """(G, 10, L)"""


class Group(NamedTuple):
    """A thread's memory for one group of images on its way there and back."""

    frame: np.ndarray[Any, Any]
    """(31, 32) an image that is distorted, and zeros around it"""
    bends: np.ndarray[Any, Any]
    """(2 + 2 WAVES, 28) how far the places of a row of it are moved; see `distort.py`"""
    picked: np.ndarray[Any, Any]
    """(L, 28, 28) the images"""
    state: np.ndarray[Any, Any]
    """What the two blocks need on the way back"""
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
    """What all threads share, and all iterations use again."""

    c1: Scratch
    """Every array with one more dimension in front, (T + 1, ...): the last is for a group that two
    threads may share"""
    c3: Scratch
    groups: Group
    """Likewise"""
    c1_taps: np.ndarray[Any, Any]
    """(8, 6, 5) the weights at the points"""
    c3_taps: np.ndarray[Any, Any]
    """(8, 60, 5)"""
    c1_sums: np.ndarray[Any, Any]
    """(8, 6, 5) the gradients there"""
    c3_sums: np.ndarray[Any, Any]
    """(8, 60, 5)"""
    vectors: Sums
    """A thread's, (T, ...)"""
    sums: Sums
    """A chunk's"""
    rows: Rows


def new_memory(
    net: Net, parts: Parameters, folded: Parameters, threads: int, images: int
) -> Memory:
    """For that many threads, and mini-batches of that many images at most.

    Parts are those that are learnt, folded what is computed with.
    """
    # As many at S2 and S4 as are learnt.
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
    """Those of a mini-batch."""
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
    """Memory for each thread: every array with one more dimension in front."""
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
