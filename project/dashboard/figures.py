"""Figures of a trained model for TensorBoard, drawn at the end of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from models import nets
from models.kernels.conv_pool import composite

ROWS, COLUMNS = 4, 8  # of the gallery


# An image and the text above it, by row and column.
Panels = dict[tuple[int, int], tuple[Tensor, str]]


class Mistake(NamedTuple):
    """A test image that was classified wrongly."""

    pixels: Tensor
    """(H, W)"""
    true: int
    predicted: int
    confidence: float
    """The probability of the predicted digit."""


def confusion_matrix(counts: Tensor, digits: Sequence[int]) -> Figure:
    """Draws the counts, each with its share of the true digit's images.

    Args:
        counts: (classes, classes), true digits in rows.
        digits: what each class stands for.
    """
    size = len(digits)
    figure = Figure(figsize=(1.6 + 0.62 * size, 1.2 + 0.62 * size), layout="constrained")
    axes = figure.subplots()
    shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
    # The square root shows single mistakes beside a thousand hits.
    axes.imshow(shares.sqrt(), cmap="Blues", vmin=0, vmax=1)
    for row in range(size):
        for column in range(size):
            count, share = int(counts[row, column]), float(shares[row, column])
            if count:
                text = f"{count:,}\n{100 * share:.{1 if share >= 0.1 else 2}f} %"
                colour = "white" if share > 0.4 else "black"
                axes.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)
    for axis, words in ((axes.xaxis, "predicted"), (axes.yaxis, "true")):
        axis.set_ticks(range(size), [str(digit) for digit in digits])
        axis.set_label_text(words)
    right, total = int(counts.trace()), int(counts.sum())
    axes.set_title(f"{right:,} of {total:,} right", fontsize=10)
    return figure


def gallery(mistakes: Sequence[Mistake], total: int) -> Figure:
    """Draws the mistakes of which the model was most certain."""
    shown = sorted(mistakes, key=lambda mistake: -mistake.confidence)[: ROWS * COLUMNS]
    texts = [f"{m.true}, taken for {m.predicted}\n{m.confidence:.0%} sure" for m in shown]
    panels: Panels = {
        divmod(n, COLUMNS): (mistake.pixels, text)
        for n, (mistake, text) in enumerate(zip(shown, texts, strict=True))
    }
    title = f"{len(mistakes):,} of {total:,} told wrong, the surest first"
    return _mosaic(panels, (ROWS, COLUMNS), title, cmap="gray_r", vmin=0, vmax=255)


def first_kernels(net: nets.LeNet5) -> Figure:
    """Draws C1's kernels."""
    weight = net.c1.weight.detach().cpu()
    panels: Panels = {(0, n): (kernel, f"map {n}") for n, kernel in enumerate(weight)}
    return _mosaic(panels, (1, len(weight)), "C1's kernels", **_around_0(weight))


def table_kernels(net: nets.LeNet5) -> Figure:
    """Draws C3's kernels at their places in its table: S2's maps down, C3's maps across."""
    layer = net.c3
    weight = layer.weight.detach().cpu()
    panels: Panels = {
        (source, output): (kernel, f"{source} to {output}")
        for kernel, (output, source) in zip(weight, layer.connections.tolist(), strict=True)
    }
    shape = layer.in_channels, len(layer.bias)
    title = "C3: a kernel for each connection, S2's maps down, C3's across"
    return _mosaic(panels, shape, title, **_around_0(weight))


def feature_maps(net: nets.LeNet5, image: Tensor) -> Figure:
    """Draws the outputs of C1 with S2, and of C3 with S4, for an image (1, 28, 28) in [0, 1]."""
    with torch.no_grad():
        # Not by the layers, which would compile a kernel for a single image.
        s2 = composite.conv_pool(image.unsqueeze(0), *net.c1.arguments())
        s4 = composite.conv_pool(s2, *net.c3.arguments())
    size = image.shape[1:]
    panels: Panels = {(0, 0): (image[0].cpu(), "input")}
    for first_row, name, maps in ((0, "S2", s2), (1, "S4", s4)):
        # All are as large as the image, each from its lowest value to its highest.
        large = F.interpolate(maps.cpu(), tuple(size), mode="nearest")[0]
        low, high = large.amin((1, 2), keepdim=True), large.amax((1, 2), keepdim=True)
        for n, panel in enumerate((large - low) / (high - low).clamp(min=1e-12)):
            row, column = divmod(n, 8)
            panels[first_row + row, column + (name == "S2")] = panel, f"{name} {n}"
    title = "feature maps, each in its own range"
    return _mosaic(panels, (3, 8), title, cmap="gray_r", vmin=0, vmax=1)


def weight_picture(net: nets.LinearClassifier, digits: Sequence[int]) -> Figure:
    """Draws the weights as an image: red speaks for the second digit, blue for the first."""
    weight = (net.output.weight.detach() * net.scale).view(28, 28).cpu()
    figure = Figure(figsize=(4.6, 4), layout="constrained")
    axes = figure.subplots()
    picture = axes.imshow(weight, **_around_0(weight))
    axes.axis("off")
    figure.colorbar(picture, ax=axes, shrink=0.8)
    axes.set_title(f"ink on red speaks for {digits[1]}, on blue for {digits[0]}", fontsize=9)
    return figure


def _around_0(values: Tensor) -> dict[str, Any]:
    """Returns a colour map that is blue below 0 and red above."""
    limit = float(values.abs().max()) or 1.0
    return {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}


def _mosaic(panels: Panels, shape: tuple[int, int], title: str, **colours: Any) -> Figure:
    """Draws a grid of images of one size as one picture: a hundred axes would take seconds."""
    rows, columns = shape
    size = max((len(panel) for panel, _ in panels.values()), default=28)
    gap, step = size * 0.12, round(size * 1.45)
    figure = Figure(figsize=(0.3 + 0.95 * columns, 0.5 + 0.95 * rows), layout="constrained")
    axes = figure.subplots()
    whole = torch.full((rows * step, columns * step), torch.nan)
    for (row, column), (panel, text) in panels.items():
        top, left = (row + 1) * step - size, column * step
        whole[top : top + size, left : left + size] = panel
        axes.text(left + size / 2 - 0.5, top - gap - 0.5, text, ha="center", fontsize=6)
    axes.imshow(whole, interpolation="nearest", **colours)
    axes.axis("off")
    axes.set_title(title, fontsize=9)
    return figure
