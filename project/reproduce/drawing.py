"""The common style of the report's figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor

from callbacks.files import written_whole
from project.drawing import optional
from project.reproduce import record

RED, BLUE, GREY = "#b5401f", "#2050d0", "#8a8a8a"
DPI = 110


def save(figure: Figure, path: Path, caption: str) -> record.Figure:
    """Writes the figure as PNG; if it cannot be drawn, its record names no file."""
    name = ""
    with optional(f"the figure {path.name}"):
        with written_whole(path) as file:
            figure.savefig(file, format="png", dpi=DPI, bbox_inches="tight")
        name = path.name
    return record.Figure(name, caption)


def plain_axes(axes: Any) -> None:
    """Removes lines that carry no information, and adds a pale grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)


def pictures(panels: Sequence[tuple[str, Tensor]], limits: tuple[float, float]) -> Figure:
    """Draws images side by side, each under its title.

    Args:
        panels: titles and images, (H, W) in grey or (H, W, 3) in colour.
        limits: the values drawn black and white.
    """
    figure = Figure(figsize=(2.3 * len(panels), 2.5))
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, image) in zip(grid, panels, strict=True):
        axes.imshow(image.numpy(), cmap="gray", vmin=limits[0], vmax=limits[1])
        axes.set_title(title, fontsize=10)
        axes.set_axis_off()
        axes.set_anchor("N")  # titles in a line, whatever the shapes of the images
    return figure
