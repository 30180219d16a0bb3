"""How much faster is `python -m project.fit` than the published loop?

Ours is the training time that results.json reports, everything on: TensorBoard with every
iteration's loss, losses.npy, checkpoint. Both are short slices, taken in turns.
"""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from project import fit
from project.bench import published
from project.bench.measure import Timing


class Race(NamedTuple):
    """One experiment, ours and the published loop, and how long a slice of each is."""

    iterations: Callable[[Path], Iterator[float]]
    """The published loop over a data folder."""
    published_slice: int
    our_slice: int


RACES = {
    "lenet5-original": Race(partial(published.lenet5_iterations, "original"), 40, 600),
    "lenet5-modern": Race(partial(published.lenet5_iterations, "modern"), 80, 600),
    "logistic": Race(partial(published.linear_iterations, "logistic"), 2000, 50_000),
    "mse": Race(partial(published.linear_iterations, "mse"), 2000, 50_000),
}


def race(name: str, root: Path, repeats: int) -> dict[str, Any]:
    """Times one experiment against its published loop, in turns."""
    entry = RACES[name]
    loop = entry.iterations(root)
    published.seconds_per_iteration(loop, entry.published_slice // 4)  # warm-up
    theirs, ours = [], []
    for _ in range(repeats):
        theirs.append(published.seconds_per_iteration(loop, entry.published_slice))
        ours.append(our_seconds_per_iteration(name, root, entry.our_slice))
    baseline, mine = Timing(theirs), Timing(ours)
    return {
        "experiment": name,
        "published": theirs,
        "ours": ours,
        "published per iteration": str(baseline),
        "ours per iteration": str(mine),
        "ratio": baseline.median / mine.median,
    }


def our_seconds_per_iteration(name: str, root: Path, iterations: int) -> float:
    """Training time of `project.fit` for that many iterations, in a folder that is thrown away."""
    options = ["--config", name, "--data.root", str(root.resolve())]
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        with contextlib.redirect_stdout(io.StringIO()):
            limits = [f"--trainer.max_steps={iterations}", "--trainer.limit_test_batches=1"]
            fit.main([*options, *limits])
        record = json.loads(Path(f"runs/{name}/version_0/results.json").read_text("utf-8"))
    assert record["iterations"] == iterations
    return float(record["seconds"]["train"] / iterations)
