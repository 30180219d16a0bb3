"""What do more ranks bring? `project.fit` on 1, 2 and 4 CPU ranks of this machine.

The global mini-batch stays the same, so every rank has less to do and all wait for each other once
an iteration: with nets as small as these that may well cost more than it brings. Each run is a job
of its own with everything on, in turns; the speed is that of its results.json.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from project.bench import job
from project.bench.measure import CPU

RANKS = (1, 2, 4)
BATCHES = (100, 1000)
ITERATIONS = 300


def run(
    batches: list[int], root: Path, repeats: int, progress: Callable[[str], Any]
) -> list[dict[str, Any]]:
    """Times lenet5-original by batch size and number of ranks; returns a row for each."""
    speeds: dict[tuple[int, int], list[float]] = {}
    for _ in range(repeats):
        for batch in batches:
            for ranks in RANKS:
                progress(f"batch {batch}, {ranks} ranks")
                speeds.setdefault((batch, ranks), []).append(images_per_second(batch, ranks, root))
    return [
        {
            "batch": batch,
            "ranks": ranks,
            "device": str(CPU),
            "images per second": values,
            "speed-up": (speed_up := median(values) / median(speeds[batch, 1])),
            "efficiency": speed_up / ranks,
        }
        for (batch, ranks), values in speeds.items()
    ]


def images_per_second(batch: int, ranks: int, root: Path, iterations: int = ITERATIONS) -> float:
    """Returns the speed of one run of project.fit, whose ranks share the threads."""
    options = [f"--trainer.max_steps={iterations}", "--trainer.limit_test_batches=1"]
    options += [f"--data.batch_size={batch}", f"--data.root={root}", "--trainer.accelerator=cpu"]
    if ranks > 1:
        options += [f"--trainer.devices={ranks}", "--trainer.strategy=ddp"]
    record = job.fit(*options)
    assert record["world_size"] == ranks
    return float(record["images_per_second"])


def lines(rows: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Returns the lines of the table, from the rows of `run`."""
    return [
        (
            str(row["batch"]),
            str(row["ranks"]),
            _spread(row["images per second"]),
            f"{row['speed-up']:.2f} x",
            f"{row['efficiency']:.0%}",
            "" if row["ranks"] == 1 else "yes" if row["speed-up"] > 1 else "no",
        )
        for row in rows
    ]


def _spread(values: list[float]) -> str:
    return f"{median(values):,.0f} ({min(values):,.0f} to {max(values):,.0f})"
