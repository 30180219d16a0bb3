"""The loss of one group of images, and its gradient at F6's output.

With t = tanh of F6's pre-activations, an image has logits z: those of a dense layer, or for 1998
minus the squared distances of F6's output to the codes (Eq. 7). The cross-entropy has one more
class, rubbish, to which no image belongs: with its logit -infinity it is the ordinary one,
otherwise it is Eq. 9 of 1998. Eq. 8 is minus the logit of the correct class.

Arrays are flat; comments give shapes. A layer's values for a group are (outputs, L),
L as in `lanes.py`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from models.kernels.compiled import compiled
from models.kernels.lanes import LANES
from models.kernels.lenet5.dense import dense, dense_input_gradient
from models.kernels.lenet5.design import LOGITS, MSE
from models.kernels.simd.vector import add, fma, load, mul, splat, store


class Head(NamedTuple):
    """The constants of what follows F6."""

    loss: int
    """LOGITS, MAP or MSE"""
    amplitude: np.float32
    """F6's output is amplitude * t."""
    rubbish: np.float32
    """The logit of the rubbish class"""


@compiled()
def loss_of_group(kind, batch, first, net, group, d, losses):
    """F6's t (84, L) -> the losses of this group, d at the logits, and the gradient at t.

    The group's images are those from batch.order[first] on. Lanes after the last image are unused:
    their gradient is 0.
    """
    if kind.loss == LOGITS:
        dense(group.f6, net.output, net.output_bias, False, group.output)
    else:
        _nearness(group.f6, kind.amplitude, net.output, group.output)
    _cross_entropy(group.output, kind.rubbish, kind.loss != MSE, batch, first, d, losses)
    dense_input_gradient(d, net.output, group.f6_gradient)
    if kind.loss != LOGITS:
        _through_nearness(d, kind.amplitude, group.f6, group.f6_gradient)


@compiled()
def _nearness(t, amplitude, codes, z):
    """Minus the squared distances of amplitude * t (84, L) to the codes (classes, 84)."""
    inputs = len(t) // LANES
    minus, scale = splat(np.float32(-1)), splat(amplitude)
    for k in range(len(z) // LANES):
        total = splat(np.float32(0))
        for i in range(inputs):
            apart = fma(scale, load(t, i * LANES), splat(-codes[k * inputs + i]))
            total = fma(mul(minus, apart), apart, total)
        store(z, k * LANES, total)


@compiled()
def _through_nearness(d, amplitude, t, dt):
    """Gradient d (classes, L) at the logits -> dt at t; before, dt is the sum of d times codes."""
    total = splat(np.float32(0))
    for k in range(0, len(d), LANES):
        total = add(total, load(d, k))
    share, twice = mul(splat(-amplitude), total), splat(2 * amplitude)
    for i in range(0, len(t), LANES):
        store(dt, i, mul(twice, fma(share, load(t, i), load(dt, i))))


@compiled()
def _cross_entropy(z, rubbish, others, batch, first, d, losses):
    """Logits z (classes, L) -> the losses of this group, and d, share times their gradient at z.

    `others` says whether classes other than the correct one count.
    """
    labels, targets, order, share = batch.labels, batch.targets, batch.order, batch.share
    images, classes = len(order) - first, len(z) // LANES
    for lane in range(LANES):
        if lane >= images:
            for k in range(classes):
                d[k * LANES + lane] = 0
            continue
        most = rubbish
        for k in range(classes):
            most = max(most, z[k * LANES + lane])
        total = np.exp(rubbish - most)
        for k in range(classes):
            power = np.exp(z[k * LANES + lane] - most)
            d[k * LANES + lane] = power
            total += power
        log_total, image = np.log(total), order[first + lane]
        losses[first + lane] = np.float32(0)
        for k in range(classes):
            at = k * LANES + lane
            target = targets[image, k] if len(targets) else np.float32(k == labels[image])
            d[at] *= (share if others else np.float32(0)) / total
            if target:
                loss = log_total - (z[at] - most) if others else -z[at]
                losses[first + lane] += target * loss
                d[at] -= share * target
