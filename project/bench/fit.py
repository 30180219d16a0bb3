"""How much faster is `project.fit` than the published loop and than other common loops?

On each device, all loops run there and are compared with the published loop there. Ours is the
training time that results.json reports, with everything on: TensorBoard with every iteration's
loss, losses.npy, checkpoints. All are timed in short slices, in turns.
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

import torch

from models.nets import C3, LeNet5
from project import fit
from project.bench import loops, published
from project.bench.measure import CPU, Timing, has_compiler, trainer_options


class Contestant(NamedTuple):
    """A loop, and the length of its slices."""

    seconds: Callable[[int], float]
    """Returns seconds per iteration, over that many iterations."""
    iterations: int


OURS = "python -m project.fit"
RACES = ("lenet5-original", "lenet5-modern", "logistic", "mse")


def contestants(name: str, root: Path, device: torch.device) -> dict[str, Contestant]:
    """Returns the loops of an experiment on a device by name: published one first, ours last."""
    ours = partial(our_seconds_per_iteration, name, root, device)

    def stock(loop: Iterator[float], iterations: int) -> Contestant:
        return Contestant(partial(loops.seconds_per_iteration, loop), iterations)

    if name in ("logistic", "mse"):
        return {
            "published": stock(published.linear_iterations(name, root, device), 2000),
            OURS: Contestant(ours, 50_000),
        }
    c3: C3 = "original" if name == "lenet5-original" else "modern"

    def composite() -> LeNet5:
        return LeNet5(c3, "composite").to(device)

    memory = loops.shuffled(*loops.in_memory(root, device))
    entries = {
        "published": stock(
            published.lenet5_iterations(c3, root, device), 40 if c3 == "original" else 80
        ),
        "composite C3, default Trainer": Contestant(
            partial(_in_a_folder, loops.trainer_seconds_per_iteration, c3, root, device), 60
        ),
        "composite C3, DataLoader": stock(
            loops.iterations(composite(), loops.loaded_batches(root, device)), 60
        ),
        "composite C3, batches in memory": stock(loops.iterations(composite(), memory), 100),
        "the same, torch.compile": stock(loops.iterations(_compiled(composite()), memory), 100),
        OURS: Contestant(ours, 1200),
    }
    if device == CPU and not has_compiler():
        del entries["the same, torch.compile"]
    return entries


def race(
    name: str,
    device: torch.device,
    entries: dict[str, Contestant],
    repeats: int,
    progress: Callable[[str], Any],
) -> list[dict[str, Any]]:
    """Times the loops of one experiment on one device in turns; returns a row for each."""
    for label, loop in entries.items():
        progress(f"{name} on {device}: {label}, warming up")
        loop.seconds(max(1, loop.iterations // 4))
    seconds: dict[str, list[float]] = {label: [] for label in entries}
    for _ in range(repeats):
        for label, loop in entries.items():
            progress(f"{name} on {device}: {label}")
            seconds[label].append(loop.seconds(loop.iterations))
    baseline = Timing(seconds["published"]).median
    return [
        {
            "experiment": name,
            "device": str(device),
            "loop": label,
            "per iteration": values,
            "ratio": baseline / Timing(values).median,
        }
        for label, values in seconds.items()
    ]


def lines(rows: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Returns the lines of the table, from the rows of all races."""
    return [
        (
            row["experiment"],
            row["device"],
            row["loop"],
            str(Timing(row["per iteration"])),
            f"{row['ratio']:.1f} x",
        )
        for row in rows
    ]


def our_seconds_per_iteration(
    name: str, root: Path, device: torch.device, iterations: int, *options: str
) -> float:
    """Returns the seconds per iteration of `project.fit`, run in a temporary folder."""
    options = (*trainer_options(device), *options)
    return _in_a_folder(_fit, name, root.resolve(), iterations, *options)


def _fit(name: str, root: Path, iterations: int, *options: str) -> float:
    with contextlib.redirect_stdout(io.StringIO()):
        limits = [f"--trainer.max_steps={iterations}", "--trainer.limit_test_batches=1"]
        fit.main(["--config", name, "--data.root", str(root), *limits, *options])
    record = json.loads(Path(f"runs/{name}/version_0/results.json").read_text("utf-8"))
    assert record["iterations"] == iterations
    return float(record["seconds"]["train"] / iterations)


def _in_a_folder(function: Callable[..., float], *args: Any) -> float:
    """Calls a function in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        return function(*args)


def _compiled(net: LeNet5) -> Any:
    return torch.compile(net)
