"""Problem 2: average pooling as a convolution, and why the identity matrix is not its kernel."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from data import source
from project.reproduce import drawing, filters
from project.reproduce.record import Outcome, Row, Task, Verdict

SIZE = 4
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
    of_white = filters.fixed(kernel[:1], stride=SIZE)(torch.ones(1, 1, SIZE, SIZE)).item()
    panels = [
        ("digit", x[0, 0]),
        (f"mean of {SIZE} x {SIZE}", pooled[0, 0]),
        (f"all ones / {SIZE**2}", ones[0, 0]),
        (f"identity / {SIZE**2}", identity[0, 0]),
    ]
    what = f"largest error, k = {SIZE}, {CHANNELS} channels"
    holds = ones_error < 1e-6 < identity_error
    return Outcome(
        Verdict.CORRECTED if holds else Verdict.NOT_REPRODUCIBLE,
        "Average pooling over k x k tiles is a depthwise convolution with stride k, but the kernel "
        "is not the identity matrix over k^2: that one adds up the k pixels of the diagonal "
        "only. The right kernel is the all-ones matrix over k^2.",
        (
            Row("the kernel of the mean", "identity / k^2", "all ones / k^2"),
            Row("all ones / k^2 against torch's avg_pool2d", "", f"{what}: {ones_error:.1g}"),
            Row("identity / k^2 against the same", "equal", f"{what}: {identity_error:.2f}"),
            Row("mean of an all-white tile, by identity / k^2", "1", f"{of_white:g}, which is 1/k"),
        ),
        (
            drawing.save(
                drawing.pictures(panels, (0, 1)),
                task.folder / "mean.png",
                "A test digit, pooled by torch, by the corrected and by the printed kernel, all "
                "in the same grey scale.",
            ),
        ),
    )
