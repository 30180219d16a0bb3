"""Where the time of one iteration of LeNet-5 goes, and how it grows with the batch.

The pieces are timed alone, in turns; then the whole gradient, which on the CPU is one compiled
call and takes less than they do; then iterations without Lightning, and `project.fit` with
everything on. What iterations take beyond the gradient are the images, the update and Python; what
project.fit takes beyond them is Lightning's and that of what is recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from data import source
from models import lenet
from models.learners.compiled import gradient_of
from models.learners.eager import by_autograd
from models.nets import C3, LeNet5
from project.bench.fit import our_seconds_per_iteration
from project.bench.measure import Timing, default_device, interleaved

BATCHES = (10, 100, 1000, 10_000)
IMAGES = 60_000  # that a run of project.fit learns from, in 20 to 600 iterations
KERNELS = ("C1 to S4 forward", "C1 to S4 backward")
DENSE = "C5 to output, loss"
SAVED = "less, since in one call"
GRADIENT = "= gradient"
LOOP, FIT = "= iteration alone", "= project.fit"
REST = "images, update, Python"
STEPS = 10  # of the iterations alone, in one call where they run so
LIGHTNING = "Lightning, records"


def pieces(c3: C3, batch: int, root: Path) -> dict[str, Callable[[], Any]]:
    """The parts of an iteration by name, each a function to call, and `STEPS` whole ones."""
    device = default_device()
    images, labels = (part.to(device) for part in source.load(root, train=True))
    labels = labels.long()
    torch.manual_seed(0)
    net = LeNet5(c3).to(device)
    index = torch.randperm(len(images))[:batch].to(device)
    trunk = [*net.c1.parameters(), *net.c3.parameters()]
    head = list(net.parameters())[len(trunk) :]
    learner = lenet.LeNet5(c3).to(device)  # apart: a graph that is walked again keeps its weights
    is_compiled = learner.backend == "cpu"
    differentiate: Any = gradient_of(learner) if is_compiled else by_autograd(learner)
    optimizer = learner.configure_optimizers()

    def gather() -> tuple[Tensor, Tensor]:
        return learner.inputs(images.index_select(0, index)), labels.index_select(0, index)

    def steps() -> None:
        if is_compiled:
            from models.kernels.lenet5.cpu import MiniBatches  # with Numba, which may be missing

            sizes, ones = np.full(STEPS, batch), torch.ones(STEPS)
            order = index.repeat(STEPS)
            batches = MiniBatches(images, labels, order)
            differentiate.descend(batches, sizes, ones / batch, ones * learner.lr)
            return
        for _ in range(STEPS):
            optimizer.zero_grad()
            differentiate(*gather(), 1 / batch)
            optimizer.step()

    x, y = gather()
    maps = net.features(x)
    to_maps = torch.randn_like(maps)
    features = maps.detach().requires_grad_()

    def loss() -> Tensor:
        return F.cross_entropy(net.classify(features), y)

    forward, backward = KERNELS
    return {
        forward: lambda: net.features(x),
        backward: lambda: torch.autograd.grad(maps, trunk, to_maps, retain_graph=True),
        DENSE: lambda: torch.autograd.grad(loss(), [features, *head]),
        GRADIENT: lambda: differentiate(x, y, 1 / batch),
        LOOP: steps,
    }


def run(
    c3: C3, root: Path, batches: Sequence[int], repeats: int, progress: Callable[[str], Any]
) -> list[dict[str, Any]]:
    """A row for each piece and each batch size, with its share of project.fit's iteration."""
    rows = []
    for batch in batches:
        progress(f"batch {batch}: pieces")
        seconds = {
            name: timing.median
            for name, timing in interleaved(pieces(c3, batch, root), repeats).items()
        }
        loop, gradient = seconds.pop(LOOP) / STEPS, seconds.pop(GRADIENT)
        seconds |= {SAVED: gradient - sum(seconds.values()), GRADIENT: gradient}
        seconds |= {REST: loop - gradient, LOOP: loop}
        progress(f"batch {batch}: project.fit")
        count = min(600, max(20, IMAGES // batch))
        options = (f"lenet5-{c3}", root, count, f"--data.batch_size={batch}")
        whole = Timing([our_seconds_per_iteration(*options) for _ in range(repeats)]).median
        seconds |= {LIGHTNING: whole - loop, FIT: whole}
        rows += [
            {"piece": name, "batch": batch, "seconds": value, "share": value / whole}
            for name, value in seconds.items()
        ]
    return rows


def overhead(rows: list[dict[str, Any]], batch: int) -> float:
    """The share of an iteration of project.fit that is neither kernel nor dense layer."""
    (share,) = (r["share"] for r in rows if r["piece"] == GRADIENT and r["batch"] == batch)
    return 1 - float(share)
