"""Problem 7: what does not hold as printed."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn, split

from models.kernels.table import C3_TABLE
from models.nets import C3
from project.reproduce.lenet_rows import BATCH, SECONDS, VARIANTS, parameters
from project.reproduce.record import Erratum
from project.reproduce.theory import multiplications

SIDE = 14  # of the maps that C3 reads


def errata(logits: Tensor, labels: Tensor) -> tuple[Erratum, ...]:
    """Returns all errata of problem 7.

    Args:
        logits: (N, 10) of the trained original net for the test images.
        labels: (N,) labels of the same images.
    """
    return times(), _complexity(), _parameters(), _test_loss(logits, labels)


def times() -> Erratum:
    """Computes the ratio of the seconds that the document prints."""
    original, modern = (SECONDS[c3] for c3 in VARIANTS)
    return Erratum(
        "the original takes approximately 10 times as long to train and test",
        f"{original / modern:.1f} times",
        f"18 min 41 s / 2 min 42 s = {original:,} / {modern}",
    )


def c3_multiplications(c3: C3) -> int:
    """Returns C3's multiplications for an image: each weight at each of its 10 x 10 outputs."""
    convolutions = [nn.Conv2d(6, 16, 5)]
    if c3 == "original":
        convolutions = [nn.Conv2d(len(inputs), 1, 5) for inputs in C3_TABLE]
    # The convolutions are side by side, not a chain.
    return sum(sum(multiplications([layer], SIDE, SIDE)) for layer in convolutions)


def _complexity() -> Erratum:
    original, modern = (f"{c3_multiplications(c3):,}" for c3 in VARIANTS)
    weights = " to ".join(f"{parameters(c3)['c3']:,}" for c3 in VARIANTS)
    return Erratum(
        "C3 is much more complex in the original",
        f"it is simpler: {original} multiply-adds for each image against {modern}",
        f"counted over its convolutions: {original} to {modern}, and {weights} parameters. What is "
        "slow is to run sixteen small convolutions and to concatenate their maps",
    )


def _parameters() -> Erratum:
    c3 = " and ".join(f"{parameters(variant)['c3']:,}" for variant in VARIANTS)
    all_layers = " and ".join(f"{sum(parameters(variant).values()):,}" for variant in VARIANTS)
    return Erratum(
        "1,516 and 2,416 are the parameters of the two nets",
        "of their C3; the nets have 60,806 and 61,706",
        f"counted in the code: C3 {c3}, all layers {all_layers}",
    )


def _test_loss(logits: Tensor, labels: Tensor) -> Erratum:
    right, as_printed = loss_both_ways(logits, labels)
    return Erratum(
        "test loss: the sum of the batch means over the number of images",
        f"the mean over the images, {BATCH} times as much",
        f"of the original net {right:.4f} for an image; computed as printed {as_printed:.6f}, "
        f"{right / as_printed:.0f} times too small",
    )


def loss_both_ways(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """Returns the mean loss of an image, and the sum of batch means over the number of images."""
    batches = zip(split(logits, BATCH), split(labels, BATCH), strict=True)
    means = [F.cross_entropy(x, y).item() for x, y in batches]
    return F.cross_entropy(logits, labels).item(), sum(means) / len(labels)
