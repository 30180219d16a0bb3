"""Problem 2: average pooling as a convolution, and why the identity matrix is not its kernel."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from data import source
from project.reproduce import drawing, filters
from project.reproduce.record import Erratum, Outcome, Row, Task, Verdict

SIZE = 3  # as in the document's example
CHANNELS = 3
IMAGES = 300


def run(task: Task) -> Outcome:
    """Compares both kernels with torch's average pooling."""
    images, _ = source.load(task.root, train=False)
    count = min(IMAGES, len(images) - len(images) % CHANNELS)
    # Three digits make the three channels of an image.
    x = images[:count].view(-1, CHANNELS, 28, 28).float() / 255
    pooled = F.avg_pool2d(x, SIZE)
    ones = filters.mean(SIZE, CHANNELS)(x)
    kernel = torch.eye(SIZE).expand(CHANNELS, 1, SIZE, SIZE) / SIZE**2
    identity = filters.fixed(kernel, stride=SIZE, groups=CHANNELS)(x)
    ones_error = (ones - pooled).abs().max().item()
    identity_error = (identity - pooled).abs().max().item()
    of_white = filters.fixed(kernel[:1])(torch.ones(1, 1, SIZE, SIZE)).item()
    panels = [
        ("digit", x[0, 0]),
        (f"mean of {SIZE} x {SIZE}", pooled[0, 0]),
        (f"all ones / {SIZE**2}", ones[0, 0]),
        (f"identity / {SIZE**2}", identity[0, 0]),
    ]
    holds = ones_error < 1e-6 < identity_error
    return Outcome(
        Verdict.CORRECTED if holds else Verdict.NOT_REPRODUCIBLE,
        "The mean over k x k pixels is a convolution, and average pooling is one with stride k, "
        "for each channel by itself; but the kernel is not the identity matrix over k^2: that one "
        "adds up the k pixels of the diagonal only.",
        (
            Row(
                "the mean over k x k pixels",
                "a convolution",
                f"all ones / k^2, k = {SIZE}, {CHANNELS} channels: largest difference from torch's "
                f"avg_pool2d {ones_error:.1g}",
            ),
        ),
        (
            drawing.save(
                drawing.pictures(panels, (0, 1)),
                task.folder / "mean.png",
                "A test digit, pooled by torch, by the corrected and by the printed kernel, all "
                "in the same grey scale.",
            ),
        ),
        (
            Erratum(
                "the kernel is I_k / k^2, I_k the k-dimensional identity matrix",
                "all ones / k^2",
                f"k = {SIZE}: I_k / k^2 differs from the mean by up to {identity_error:.2f}, and "
                f"makes {of_white:.4f} of a tile of ones, which is 1/k",
            ),
        ),
    )
