"""What a trained model looks like: figures for TensorBoard, drawn once a run is over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

from models import nets

ROWS, COLUMNS = 4, 8  # of the gallery


class Mistake(NamedTuple):
    """A test image that was told wrong."""

    pixels: Tensor
    """(H, W)"""
    true: int
    predicted: int
    confidence: float
    """The probability of what was predicted."""


def confusion_matrix(counts: Tensor, digits: Sequence[int]) -> Figure:
    """Counts, and below each its share of the true digit's images.

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
                text = f"{count:,}\n{100 * share:.3g} %"
                colour = "white" if share > 0.4 else "black"
                axes.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)
    for axis, words in ((axes.xaxis, "predicted"), (axes.yaxis, "true")):
        axis.set_ticks(range(size), [str(digit) for digit in digits])
        axis.set_label_text(words)
    right, total = int(counts.trace()), int(counts.sum())
    axes.set_title(f"{right:,} of {total:,} right", fontsize=10)
    return figure


def gallery(mistakes: Sequence[Mistake], total: int) -> Figure:
    """The mistakes that the model was most certain of."""
    shown = sorted(mistakes, key=lambda mistake: -mistake.confidence)[: ROWS * COLUMNS]
    figure = Figure(figsize=(1.1 * COLUMNS, 1.4 * ROWS + 0.4), layout="constrained")
    figure.suptitle(f"{len(mistakes):,} of {total:,} told wrong, the surest first", fontsize=10)
    grid = figure.subplots(ROWS, COLUMNS).flat
    for axes in grid:
        axes.axis("off")
    for axes, mistake in zip(grid, shown, strict=False):
        axes.imshow(mistake.pixels, cmap="gray_r")
        axes.set_title(
            f"{mistake.true}, taken for {mistake.predicted}\n{mistake.confidence:.0%} sure",
            fontsize=7,
        )
    return figure


def first_kernels(net: nets.LeNet5) -> Figure:
    """C1's six kernels."""
    weight = net.c1.weight.detach().cpu()
    figure = Figure(figsize=(1.2 * len(weight), 1.6), layout="constrained")
    for number, (axes, kernel) in enumerate(zip(figure.subplots(1, 6), weight, strict=True)):
        _show(axes, kernel, float(weight.abs().max()))
        axes.set_title(f"map {number}", fontsize=8)
    return figure


def table_kernels(net: nets.LeNet5) -> Figure:
    """C3's kernels where its connection table has them: S2's maps down, C3's maps across."""
    layer = net.c3
    weight, maps = layer.weight.detach().cpu(), len(layer.bias)
    figure = Figure(figsize=(0.55 * maps + 0.6, 0.55 * layer.in_channels + 0.8))
    grid = figure.subplots(layer.in_channels, maps)
    for axes in grid.flat:
        axes.set_axis_off()
    limit = float(weight.abs().max())
    for kernel, (output, source) in zip(weight, layer.connections.tolist(), strict=True):
        grid[source, output].set_axis_on()
        _show(grid[source, output], kernel, limit)
    for output in range(maps):
        grid[0, output].set_title(str(output), fontsize=8)
    for source in range(layer.in_channels):
        axes = grid[source, 0]
        axes.text(-0.6, 0.5, str(source), transform=axes.transAxes, fontsize=8, va="center")
    figure.suptitle("C3: a kernel for each connection, S2's maps down, C3's across", fontsize=9)
    return figure


def feature_maps(net: nets.LeNet5, image: Tensor) -> Figure:
    """What C1 with S2, and C3 with S4, make of one image (1, 28, 28) in [0, 1]."""
    with torch.no_grad():
        s2 = net.c1(image.unsqueeze(0))
        s4 = net.c3(s2)
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    grid = figure.subplots(3, 8)
    for axes in grid.flat:
        axes.axis("off")
    panels = [("input", image[0]), *((f"S2 {n}", m) for n, m in enumerate(s2[0]))]
    for axes, (name, panel) in zip(grid[0], panels, strict=False):
        axes.imshow(panel.cpu(), cmap="gray_r")
        axes.set_title(name, fontsize=8)
    for number, (axes, panel) in enumerate(zip(grid[1:].flat, s4[0], strict=True)):
        axes.imshow(panel.cpu(), cmap="gray_r")
        axes.set_title(f"S4 {number}", fontsize=8)
    return figure


def weight_picture(net: nets.LinearClassifier, digits: Sequence[int]) -> Figure:
    """The weights as an image: red speaks for the second digit, blue for the first."""
    weight = (net.output.weight.detach() * net.scale).view(28, 28).cpu()
    figure = Figure(figsize=(4.6, 4), layout="constrained")
    axes = figure.subplots()
    picture = _show(axes, weight, float(weight.abs().max()) or 1)
    figure.colorbar(picture, ax=axes, shrink=0.8)
    axes.set_title(f"ink on red speaks for {digits[1]}, on blue for {digits[0]}", fontsize=9)
    return figure


def _show(axes: Any, values: Tensor, limit: float) -> Any:
    """Values around 0 in blue and red."""
    axes.set_xticks([])
    axes.set_yticks([])
    return axes.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit)
