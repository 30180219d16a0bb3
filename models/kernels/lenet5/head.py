"""The loss of one group of eight images, and the gradient where it begins.

Arrays are flat; comments give shapes. A layer's values for a group are (outputs, 8).
"""

from __future__ import annotations

import numpy as np

from models.kernels.compiled import compiled
from models.kernels.lanes import LANES


@compiled()
def cross_entropy(z, batch, first, d, losses):
    """Logits z (classes, 8) -> the losses of this group, and d, share times their gradient at z.

    The group's images are those from batch.order[first] on. Lanes behind the last one hold no
    image: their gradient is 0.
    """
    labels, order, share = batch.labels, batch.order, batch.share
    images, classes = len(order) - first, len(z) // LANES
    for lane in range(LANES):
        if lane >= images:
            for k in range(classes):
                d[k * LANES + lane] = 0
            continue
        most = z[lane]
        for k in range(1, classes):
            most = max(most, z[k * LANES + lane])
        total = np.float32(0)
        for k in range(classes):
            power = np.exp(z[k * LANES + lane] - most)
            d[k * LANES + lane] = power
            total += power
        right = labels[order[first + lane]] * LANES + lane
        losses[first + lane] = np.log(total) - (z[right] - most)
        for k in range(classes):
            d[k * LANES + lane] *= share / total
        d[right] -= share
