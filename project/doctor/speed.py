"""Measures which learner each experiment gets on this machine, and its speed.

The trainings use random images, so that no data are needed.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch import Tensor

from data import MNISTDataModule
from models.classifier import Classifier
from models.kernels.trust import one_line
from project.experiments import CONFIGS, EXPERIMENTS, find_config

SECONDS = 1.0
IMAGES = 6_000


def experiments() -> list[str]:
    """Returns the names of all configurations."""
    return sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def build(name: str) -> tuple[Classifier, MNISTDataModule, dict[str, Any]]:
    """Returns model and random data of a configuration, and its options of the Trainer."""
    config = find_config(name)
    content = yaml.safe_load(config.text)
    make, data = EXPERIMENTS[config.experiment]
    model = make(**content.get("model", {}))
    assert isinstance(model, Classifier)
    labels = torch.tensor(model.labels)
    return model, random_digits(data, labels)(**content.get("data", {})), content.get("trainer", {})


def random_digits(kind: type[LightningDataModule], labels: Tensor) -> Any:
    """Returns a kind of data module with random images instead of MNIST's."""

    def load(self: Any, *, train: bool) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (IMAGES, 28, 28), generator=generator, dtype=torch.uint8)
        return images, labels[torch.randint(0, len(labels), (IMAGES,), generator=generator)]

    return type(kind.__name__, (kind,), {"load": load, "prepare_data": lambda self: None})


class Stopwatch(Callback):
    """Times a training, and ends it after `SECONDS`."""

    reads_blocks = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock."""
        self.start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Reads the clock after a block."""
        outputs["losses"].sum().item()  # waits for the device
        self.seconds = time.perf_counter() - self.start
        trainer.should_stop = self.seconds > SECONDS


def examine(name: str, folder: Path) -> dict[str, Any]:
    """Trains an experiment for a second.

    Returns:
        Name, device, learner, the reason against a faster one, and milliseconds per iteration; or
        what went wrong.
    """
    model, data, options = build(name)
    stopwatch = Stopwatch()
    try:
        trainer = Trainer(
            **{key: options[key] for key in ("max_epochs", "max_steps") if key in options},
            devices=1,
            callbacks=[stopwatch],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        trainer.fit(model, datamodule=data)
    except Exception as error:  # whatever it is, it is reported
        return {"name": name, "wrong": one_line(error)}
    return {
        "name": name,
        "device": str(trainer.strategy.root_device),
        "learner": model.learner,
        "why_not_faster": model.why_not_faster,
        "ms_per_iteration": 1000 * stopwatch.seconds / trainer.global_step,
        "wrong": None,
    }
