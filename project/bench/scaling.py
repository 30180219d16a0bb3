"""What do more ranks bring? `project.fit` on 1, 2 and 4 CPU ranks of this machine.

The global mini-batch stays the same, so every rank has less to do and all wait for each other once
an iteration: with nets as small as these that may well cost more than it brings. Each run is a job
of its own with everything on, in turns; the speed is that of its results.json.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from project.errors import UserError

RANKS = (1, 2, 4)
BATCHES = (100, 1000)
ITERATIONS = 300
REPOSITORY = Path(__file__).parents[2]


def run(
    batches: list[int], root: Path, repeats: int, progress: Callable[[str], Any]
) -> list[dict[str, Any]]:
    """Times lenet5-original at every batch size on every number of ranks; a row for each."""
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
            "images per second": values,
            "speed-up": (speed_up := median(values) / median(speeds[batch, 1])),
            "efficiency": speed_up / ranks,
        }
        for (batch, ranks), values in speeds.items()
    ]


def images_per_second(batch: int, ranks: int, root: Path, iterations: int = ITERATIONS) -> float:
    """Of one run of project.fit, its threads divided over its ranks."""
    command = [sys.executable, "-m", "project.fit", "--trainer.accelerator=cpu"]
    command += [f"--trainer.max_steps={iterations}", "--trainer.limit_test_batches=1"]
    command += [f"--data.batch_size={batch}", f"--data.root={root}"]
    if ranks > 1:
        command += [f"--trainer.devices={ranks}", "--trainer.strategy=ddp"]
    with tempfile.TemporaryDirectory() as folder:
        paths = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
        done = subprocess.run(
            command,
            cwd=folder,
            env=os.environ | {"PYTHONPATH": paths},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise UserError(f"project.fit on {ranks} ranks ended with: {done.stderr[-500:]}")
        (results,) = Path(folder).glob("runs/*/*/results.json")
        record = json.loads(results.read_text("utf-8"))
    assert record["world_size"] == ranks
    return float(record["images_per_second"])
