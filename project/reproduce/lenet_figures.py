"""The figures of problem 7."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure as Drawing
from torch import Tensor

from models.kernels.table import ConnectionTable
from project.reproduce import drawing
from project.reproduce.record import Figure

WINDOW = 100
MOST_MISSED = 40
Losses = np.ndarray[Any, np.dtype[np.float32]]


def losses(curves: Mapping[str, Losses], folder: Path) -> Figure:
    """Draws every iteration's loss, pale, and the mean of the iterations around it."""
    figure = Drawing(figsize=(8.0, 3.3))
    axes = figure.subplots()
    window = min(WINDOW, *(len(curve) for curve in curves.values()))
    for (name, curve), colour in zip(curves.items(), (drawing.RED, drawing.BLUE), strict=True):
        iterations = np.arange(1, len(curve) + 1)
        axes.plot(iterations, curve, color=colour, alpha=0.18, linewidth=0.4)
        smooth = np.convolve(curve, np.full(window, 1 / window), mode="valid")
        centres = iterations[window // 2 :][: len(smooth)]
        axes.plot(centres, smooth, color=colour, linewidth=1.6, label=f"{name} C3")
    axes.set(yscale="log", xlabel="iteration (100 images)", ylabel="training loss")
    axes.margins(x=0)
    axes.legend(frameon=False, title=f"mean of {window} iterations")
    drawing.plain_axes(axes)
    return drawing.save(
        figure,
        folder / "loss.png",
        "Figure 1: the training loss of every iteration (pale) and the mean around it, one seed.",
    )


def differences(found: Mapping[str, Sequence[float]], folder: Path) -> tuple[Figure, ...]:
    """Draws the distribution of the pairs' differences by recipe; nothing for a single pair."""
    pairs = len(next(iter(found.values())))
    if pairs == 1:
        return ()
    figure = Drawing(figsize=(8.0, 1.9 * len(found)), layout="constrained")
    panels = figure.subplots(len(found), 1, sharex=True, squeeze=False).flatten()
    widest = max(abs(points) for values in found.values() for points in values)
    # A bin is as wide as five test images, and one bin is centred on 0.
    edges = (np.arange(-math.ceil(20 * widest), math.ceil(20 * widest) + 2) - 0.5) / 20
    for axes, (recipe, points) in zip(panels, found.items(), strict=True):
        axes.hist(points, bins=edges, color=drawing.BLUE)
        axes.axvline(0, color="0.6", linewidth=1)
        axes.axvline(np.mean(points), color=drawing.RED, linestyle="--", linewidth=1.4)
        axes.set_title(f"{recipe} recipe", loc="left", fontsize=10)
        axes.set_ylabel("pairs")
        axes.yaxis.get_major_locator().set_params(integer=True)
        drawing.plain_axes(axes)
    panels[-1].set_xlabel("accuracy of the original less that of the modern net, points")
    return (
        drawing.save(
            figure,
            folder / "pairs.png",
            f"What Table I of 1998 costs or brings, in {pairs} pairs of the same seed. Dashed: "
            "the mean.",
        ),
    )


def connections(table: ConnectionTable, folder: Path) -> Figure:
    """Draws which maps of S2 feed which map of C3."""
    inputs = 1 + max(max(row) for row in table)
    dots = torch.zeros(inputs, len(table))
    for output, row in enumerate(table):
        dots[list(row), output] = 1
    figure = Drawing(figsize=(6.4, 2.6))
    axes = figure.subplots()
    axes.imshow(dots.numpy(), cmap="Blues", vmin=0, vmax=1.4, aspect="equal")
    axes.set(xlabel="map of C3", ylabel="map of S2", xticks=range(len(table)), yticks=range(inputs))
    axes.set_xticks(np.arange(len(table) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(inputs + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    return drawing.save(
        figure,
        folder / "connections.png",
        f"The original C3: {int(dots.sum())} of {dots.numel()} connections (Table I of LeCun et "
        "al. 1998). The modern one has all of them.",
    )


def confusion(predicted: Tensor, labels: Tensor, folder: Path) -> Figure:
    """Draws how often each digit is taken for each other one."""
    counts = torch.zeros(10, 10, dtype=torch.long)
    counts.index_put_((labels, predicted), torch.ones_like(labels), accumulate=True)
    errors = counts - torch.diag(counts.diag())
    figure = Drawing(figsize=(4.6, 4.4))
    axes = figure.subplots()
    axes.imshow(errors.numpy(), cmap="Reds", vmin=0, vmax=max(1, int(1.5 * errors.max())))
    for true in range(10):
        for answer in range(10):
            if count := int(counts[true, answer]):
                axes.text(answer, true, str(count), ha="center", va="center", fontsize=8)
    axes.set(xlabel="answer", ylabel="digit", xticks=range(10), yticks=range(10))
    axes.tick_params(length=0)
    return drawing.save(
        figure,
        folder / "confusion.png",
        f"The original LeNet-5 on the test images: {int(errors.sum())} of {len(labels):,} are "
        "missed; coloured are the errors.",
    )


def missed(
    images: Tensor, predicted: Tensor, labels: Tensor, digits: tuple[int, ...], folder: Path
) -> Figure:
    """Draws the images of some digits that are taken for others."""
    chosen = torch.isin(labels, torch.tensor(digits)) & (predicted != labels)
    indices = chosen.nonzero().flatten()
    shown = indices[:MOST_MISSED].tolist()
    columns = 10
    rows = max(1, -(-len(shown) // columns))
    figure = Drawing(figsize=(0.85 * columns, 1.05 * rows))
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes in grid:
        axes.set_axis_off()
    for axes, index in zip(grid, shown, strict=False):
        axes.imshow(images[index].numpy(), cmap="gray_r")
        axes.set_title(f"{labels[index]} as {predicted[index]}", fontsize=9)
    names = " and ".join(f"{digit}s" for digit in digits)
    first = f", the first {len(shown)} shown" if len(shown) < len(indices) else ""
    return drawing.save(
        figure,
        folder / "missed.png",
        f"The {names} that the original LeNet-5 misses: {len(indices)}{first}.",
    )
