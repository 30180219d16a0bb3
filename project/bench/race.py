"""How many seconds of training until 98.64 % of the test images are right, and until 99 %?

The time to accuracy is measured on one device for all. Every contestant trains with several seeds,
in turns, and its clock is stopped during set-up, compilation and evaluations of the test images. A
target is reached at the first evaluation with that mean accuracy over the seeds, so that a lucky
seed does not decide.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional as F

from data import source
from models.lenet import LeNet5
from models.nets import C3
from models.schedules import Length
from project.bench import job, loops, published
from project.bench.measure import CPU, has_compiler, trainer_options
from project.confidence import confidence_interval
from project.experiments import CONFIGS
from project.recorded_run import RecordedRun

TARGETS = (0.9864, 0.99)
"""The published accuracy of lenet5-original, and a higher one."""

EVERY = 100
"""Iterations between two evaluations of the test images."""

PUBLISHED_EPOCHS = 10
PUBLISHED = "published"


class Look(NamedTuple):
    """An evaluation of the test images during a training."""

    seconds: float
    """Seconds of training before it."""
    accuracy: float


Curve = list[Look]
Contestant = Callable[[int], Curve]
"""Trains with a seed and returns its evaluations."""


def contestants(c3: C3, root: Path, device: torch.device) -> dict[str, Contestant]:
    """Returns the contestants on a device by name: the published loop first, ours last."""
    name = f"lenet5-{c3}-fast"
    entries: dict[str, Contestant] = {
        PUBLISHED: partial(_train_published, c3, root, device),
        f"{name} in plain torch": partial(_train_plainly, name, root, device, compiles=False),
        "the same, torch.compile": partial(_train_plainly, name, root, device, compiles=True),
        f"python -m project.fit --config {name}": partial(_train_ours, name, root, device),
    }
    if device == CPU and not has_compiler():
        del entries["the same, torch.compile"]
    return entries


def race(
    entries: dict[str, Contestant],
    device: torch.device,
    seeds: int,
    progress: Callable[[str], Any],
) -> list[dict[str, Any]]:
    """Trains all contestants with every seed on one device, in turns.

    Returns:
        A row for each: "loop", its name, and "device"; "curves", the evaluations of each seed;
        "trained", each seed's seconds of the whole training; "seconds", by target, those of each
        seed until it is reached, or None.
    """
    curves: dict[str, list[Curve]] = {label: [] for label in entries}
    for seed in range(seeds):
        for label, train in entries.items():
            progress(f"{label} on {device}, seed {seed}")
            curves[label].append(train(seed))
    return [
        {
            "loop": label,
            "device": str(device),
            "curves": found,
            "trained": [curve[-1].seconds for curve in found],
            "seconds": {percent(target): seconds_to(target, found) for target in TARGETS},
        }
        for label, found in curves.items()
    ]


def lines(rows: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Returns the lines of the table, one for each target and row of `race` on each device."""
    published = {row["device"]: row for row in reversed(rows)}  # the first of each
    return [
        (
            row["loop"],
            row["device"],
            target,
            describe(seconds, row["trained"]),
            times_faster(row, published[row["device"]], target),
        )
        for row in rows
        for target, seconds in row["seconds"].items()
    ]


def note(rows: list[dict[str, Any]]) -> str:
    """Describes the time from start to end, by `waits` in each device's last row."""
    return "\n".join(
        f"project.fit on {row['device']} from Enter to its end, set-up and test included: "
        f"{waits['later']:.3g} s; {waits['first']:.3g} s the first time, when it compiles"
        for row in rows
        if (waits := row.get("waits"))
    )


def seconds_to(target: float, curves: list[Curve]) -> list[float] | None:
    """Returns each seed's seconds until the mean accuracy is the target; None if it never is.

    >>> slow, fast = [Look(1, 0.5), Look(2, 0.7)], [Look(1, 0.6), Look(3, 0.9)]
    >>> seconds_to(0.8, [slow, fast])
    [2, 3]
    """
    for looks in zip(*curves, strict=True):
        if fmean(look.accuracy for look in looks) >= target:
            return [look.seconds for look in looks]
    return None


def describe(seconds: list[float] | None, trained: list[float]) -> str:
    """Describes the mean and, for several seeds, half of its confidence interval.

    >>> describe([2.0, 2.0, 2.0], [3.0, 3.0, 3.0]), describe(None, [3.0, 3.0, 3.0])
    ('2 +- 0 s', 'not in 3 s')
    """
    if seconds is None:
        return f"not in {fmean(trained):.3g} s"
    if len(seconds) == 1:
        return f"{seconds[0]:.3g} s"
    low, high = confidence_interval(seconds)
    return f"{fmean(seconds):.3g} +- {(high - low) / 2:.2g} s"


def times_faster(row: dict[str, Any], baseline: dict[str, Any], target: str) -> str:
    """Describes how many times faster a row reaches a target than another, or the least."""
    if row["seconds"][target] is None:
        return ""
    reached = baseline["seconds"][target]
    ratio = fmean(reached or baseline["trained"]) / fmean(row["seconds"][target])
    return f"{'' if reached else 'over '}{ratio:.1f} x"


def waits(c3: C3, root: Path, device: torch.device) -> dict[str, float]:
    """Returns the seconds of `project.fit` from start to end, test included: "first" and "later".

    The first time, nothing that it computes with is compiled yet.
    """
    with tempfile.TemporaryDirectory() as cache:
        caches = {"NUMBA_CACHE_DIR": cache, "TRITON_CACHE_DIR": cache}
        return {run: _wait(c3, root, device, caches) for run in ("first", "later")}


def _wait(c3: C3, root: Path, device: torch.device, environment: dict[str, str]) -> float:
    start = time.perf_counter()
    options = [f"--config=lenet5-{c3}-fast", f"--data.root={root}", *trainer_options(device)]
    job.fit(*options, **environment)
    return time.perf_counter() - start


def percent(share: float) -> str:
    """Formats a share, such as 98.64 %."""
    return f"{100 * share:g} %"


def _train_published(c3: C3, root: Path, device: torch.device, seed: int) -> Curve:
    torch.manual_seed(seed)
    net = published.published_lenet5(c3).to(device)
    loop = loops.iterations(net, loops.loaded_batches(root, device, PUBLISHED_EPOCHS))
    images, labels = _test_images(root, device)
    return list(_looks(loop, net, loops.pixels(images), labels))


def _train_plainly(
    name: str, root: Path, device: torch.device, seed: int, *, compiles: bool
) -> Curve:
    """Trains by the recipe of a configuration, in plain torch with batches in memory."""
    config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))
    torch.manual_seed(seed)
    model = LeNet5(**config["model"] | {"backend": "composite"}).to(device)
    size = config["data"]["batch_size"]
    x, labels = loops.in_memory(root, device, model.inputs)
    epoch = -(-len(x) // size)
    total = epoch * config["trainer"]["max_epochs"]
    parts = model.schedule(torch.arange(total, dtype=torch.float64), Length(epoch, total))
    net = _compiled(model.net, x[:size], labels[:size]) if compiles else model.net
    batches = loops.shuffled(x, labels, size)
    loop = loops.iterations(net, batches, (model.lr * parts).tolist(), **model.update._asdict())
    images, labels = _test_images(root, device)
    return list(_looks(loop, model.net, model.inputs(images), labels))


def _test_images(root: Path, device: torch.device) -> tuple[Tensor, Tensor]:
    """Returns images (N, 28, 28) uint8 and labels (N,) int64."""
    images, labels = source.load(root, train=False)
    return images.to(device), labels.to(device).long()


def _compiled(net: nn.Module, x: Tensor, labels: Tensor) -> Any:
    """Returns a version of `net` with the same weights, compiled forward and backward."""
    compiled: Any = torch.compile(net)
    torch.autograd.backward(F.cross_entropy(compiled(x), labels))
    return compiled


def _train_ours(name: str, root: Path, device: torch.device, seed: int) -> Curve:
    clock = Clock(*_test_images(root, device))
    options = [f"--config={name}", f"--data.root={root}", f"--seed_everything={seed}"]
    options += [*trainer_options(device), f"--data.block_size={EVERY}"]
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.chdir(folder),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        run = RecordedRun(options, "Trains for the race.")
        # The last one, so that the others' work after a block counts towards the next evaluation.
        run.trainer.callbacks.append(clock)  # type: ignore[attr-defined]
        run.trainer.fit(run.model, datamodule=run.datamodule)
    return clock.curve


class Clock(Callback):
    """Evaluates the test images after every block, while the clock is stopped.

    Args:
        images: (N, 28, 28) uint8, on the model's device.
        labels: (N,) int64.
    """

    reads_blocks = True

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.curve: Curve = []
        self._images, self._labels = images, labels
        self._seconds = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock."""
        self._since = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Evaluates the test images."""
        assert isinstance(pl_module, LeNet5)
        outputs["losses"].sum().item()  # waits for the device
        self._seconds += time.perf_counter() - self._since
        right = _accuracy(pl_module, pl_module.inputs(self._images), self._labels)
        self.curve.append(Look(self._seconds, right))
        self._since = time.perf_counter()


def _looks(loop: Iterator[float], net: nn.Module, x: Tensor, labels: Tensor) -> Iterator[Look]:
    seconds = 0.0
    while True:
        start = time.perf_counter()
        count = sum(1 for _ in itertools.islice(loop, EVERY))
        seconds += time.perf_counter() - start
        if not count:
            return
        yield Look(seconds, _accuracy(net, x, labels))


@torch.no_grad()
def _accuracy(net: nn.Module, x: Tensor, labels: Tensor) -> float:
    # All at once, the first layer's outputs would be 200 MB.
    predicted = torch.cat([net(part).argmax(1) for part in torch.split(x, 1000)])
    return (predicted == labels).double().mean().item()
