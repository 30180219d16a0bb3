"""The figures of the bench: how long an iteration takes, and accuracy over the seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from callbacks.files import written_whole
from project.bench.fit import OURS
from project.bench.measure import Timing
from project.bench.race import TARGETS, percent

GREY, BLUE = "#b8b8b8", "#2563a8"

ERRORS = (90, 50, 20, 10, 5, 2, 1, 0.5)
"""Errors, in percent of the test images, at which the accuracy axis has a tick."""


def save(rows: list[dict[str, Any]], path: Path) -> None:
    """Draws the rows of `fit.race` as bars over a logarithmic scale, and writes a PNG."""
    # Takes half a second to import, and only figures need it.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1 + 0.32 * len(rows)), layout="constrained")
    axes = figure.subplots()
    names = [f"{row['experiment']} on {row['device']}   {row['loop']}" for row in rows]
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


def save_race(rows: list[dict[str, Any]], path: Path) -> None:
    """Draws the curves of `race.race`, a line for each contestant and seed, and writes a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        colour = BLUE if place == len(rows) - 1 else f"C{(place + 1) % 10}"
        for seed, curve in enumerate(row["curves"]):
            seconds, accuracies = zip(*curve, strict=True)
            # A test without an error has no logarithm.
            errors = [max(100 * (1 - accuracy), 0.01) for accuracy in accuracies]
            label = None if seed else f"{row['loop']} on {row['device']}"
            axes.plot(seconds, errors, color=colour, alpha=0.7, linewidth=1, label=label)
    for target in TARGETS:
        axes.axhline(100 * (1 - target), color="black", linestyle=":", linewidth=0.8)
        axes.text(
            1, 100 * (1 - target), f" {percent(target)}", transform=axes.get_yaxis_transform()
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_yticks(ERRORS, [f"{100 - error:g} %" for error in ERRORS])
    axes.set_yticks([], minor=True)
    axes.invert_yaxis()
    axes.set_xlabel("seconds of training (logarithmic)")
    axes.set_ylabel("test accuracy (its errors logarithmic)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize="small", frameon=False, loc="lower right")
    with written_whole(path) as file:
        figure.savefig(file, format="png", dpi=150)
