"""The figure of the bench: how long an iteration takes, in each way to write it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from callbacks.files import written_whole
from project.bench.fit import OURS
from project.bench.measure import Timing

GREY, BLUE = "#b8b8b8", "#2563a8"


def save(rows: list[dict[str, Any]], path: Path) -> None:
    """Draws the rows of `fit.race` as bars over a logarithmic scale, and writes a PNG."""
    # Half a second to import, and only this needs it.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1 + 0.32 * len(rows)), layout="constrained")
    axes = figure.subplots()
    names = [f"{row['experiment']}   {row['loop']}" for row in rows]
    medians = [1000 * Timing(row["per iteration"]).median for row in rows]
    colours = [BLUE if row["loop"] == OURS else GREY for row in rows]
    bars = axes.barh(range(len(rows)), medians, color=colours)
    labels = [
        f" {milliseconds:.3g} ms, {row['ratio']:.3g} x"
        for milliseconds, row in zip(medians, rows, strict=True)
    ]
    axes.bar_label(bars, labels, fontsize=8)
    axes.set_yticks(range(len(rows)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(min(medians) / 2, max(medians) * 8)
    # At the right edge: centred below the bars, it would run out of the picture.
    axes.set_xlabel(
        "milliseconds per iteration (logarithmic), and how often faster than published",
        loc="right",
        fontsize="small",
    )
    axes.spines[["top", "right"]].set_visible(False)
    with written_whole(path) as file:
        figure.savefig(file, format="png", dpi=150)
