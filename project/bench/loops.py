"""Training loops with stock parts, against which this project is measured."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from data import source
from models.nets import C3, LeNet5
from project.bench.measure import ACCELERATORS

BATCH = 100
LR = 0.1


def pixels(images: Tensor) -> Tensor:
    """Bytes (N, 28, 28) -> floats (N, 1, 28, 28) from 0 to 1."""
    return images.unsqueeze(1).float() / 255


def in_memory(
    root: Path, device: torch.device, inputs: Callable[[Tensor], Tensor] = pixels
) -> tuple[Tensor, Tensor]:
    """Returns all training images as inputs (N, 1, 28, 28), and their labels (N,) int64."""
    images, labels = source.load(root, train=True)
    return inputs(images.to(device)), labels.to(device).long()


def shuffled(x: Tensor, y: Tensor, size: int = BATCH) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields mini-batches (B, 1, 28, 28) and (B,) without end, every epoch in another order."""
    while True:
        for index in torch.split(torch.randperm(len(x), device=x.device), size):
            yield x[index], y[index]


def loader(root: Path) -> DataLoader[Any]:
    """Returns a DataLoader of torchvision's images with ToTensor."""
    # torchvision takes a second to import, and only these loops need it.
    from torchvision import datasets, transforms

    images = datasets.MNIST(str(root), train=True, transform=transforms.ToTensor())
    return DataLoader(images, batch_size=BATCH, shuffle=True)


def loaded_batches(
    root: Path, device: torch.device, epochs: int | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Returns mini-batches of `loader` on a device; without end, if no epochs are given."""
    often = itertools.repeat(loader(root), *([] if epochs is None else [epochs]))
    batches = itertools.chain.from_iterable(often)
    return ((x.to(device), y.to(device)) for x, y in batches)


def iterations(
    net: nn.Module,
    batches: Iterator[tuple[Tensor, Tensor]],
    rates: Iterable[float] = itertools.repeat(LR),
    **update: Any,
) -> Iterator[float]:
    """Trains in plain torch, as long as there are rates; yields each iteration's loss.

    Args:
        net: network to train.
        batches: mini-batches to train on.
        rates: the learning rate of each iteration.
        update: the other settings of `torch.optim.SGD`.
    """
    optimizer = torch.optim.SGD(net.parameters(), lr=LR, **update)
    # The rates come first, so that no batch is taken after they end.
    for rate, (x, y) in zip(rates, batches, strict=False):
        optimizer.param_groups[0]["lr"] = rate
        loss = F.cross_entropy(net(x), y)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        yield loss.item()


def seconds_per_iteration(loop: Iterator[float], count: int) -> float:
    """Returns the mean over the next `count` iterations of a loop."""
    start = time.perf_counter()
    for _ in itertools.islice(loop, count):
        pass
    return (time.perf_counter() - start) / count


class Textbook(LightningModule):
    """A LightningModule as a tutorial writes it: one batch a step, automatic optimization."""

    def __init__(self, c3: C3) -> None:
        super().__init__()
        self.net = LeNet5(c3, "composite")

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Returns the mean loss, and logs it."""
        x, y = batch
        loss = F.cross_entropy(self.net(x), y)
        self.log("train/loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Returns plain gradient descent."""
        return torch.optim.SGD(self.parameters(), lr=LR)


class Stopwatch(Callback):
    """Measures the seconds from the start of the training to its end."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock."""
        self.start = time.perf_counter()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops the clock."""
        self.seconds = time.perf_counter() - self.start


def trainer_seconds_per_iteration(c3: C3, root: Path, device: torch.device, count: int) -> float:
    """Returns the mean over `count` iterations of a default Trainer, in the current folder."""
    stopwatch = Stopwatch()
    trainer = Trainer(
        max_steps=count,
        accelerator=ACCELERATORS[device.type],
        devices=1,
        callbacks=[stopwatch],
        # Only what would clutter the terminal is off.
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Textbook(c3), loader(root))
    return stopwatch.seconds / count
