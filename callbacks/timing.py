"""Measures the time of each stage of a run."""

from __future__ import annotations

import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class Timing(Callback):
    """Measures set-up, training, validation and test separately, and logs each epoch's speed.

    `training_step` must return a dict with "images" (a count). The device is synchronized only
    between two stages. A resumed run adds to the seconds of its checkpoint.

    Attributes:
        seconds: "setup" (from the creation of this callback to the first iteration), "train"
            (without validation), "validate" and "test".
        images: number of images trained on.
    """

    reads_blocks = True

    def __init__(self) -> None:
        self.seconds = {"setup": 0.0, "train": 0.0, "validate": 0.0, "test": 0.0}
        self.images = 0
        self._stage: str | None = "setup"
        self._since = time.perf_counter()

    @property
    def images_per_second(self) -> float | None:
        """Images per second of training; None before any training."""
        return self.images / self.seconds["train"] if self.seconds["train"] else None

    def _enter(self, stage: str | None, trainer: Trainer) -> None:
        """Adds the time since the last call to the stage that ends now."""
        _synchronize(trainer.strategy.root_device)
        now = time.perf_counter()
        if self._stage is not None:
            self.seconds[self._stage] += now - self._since
        self._stage, self._since = stage, now

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ends the set-up stage."""
        # Lightning does not call it for an epoch inside which a run resumes.
        self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stores the counts at the start of the epoch."""
        self._enter("train", trainer)
        self._epoch_start = self.seconds["train"], self.images, trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts the images of the block."""
        self.images += outputs["images"]

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs the epoch's seconds and its speed."""
        self._enter("train", trainer)
        seconds, images, step = self._epoch_start
        epoch = self.seconds["train"] - seconds
        speed = {
            "time/epoch_seconds": epoch,
            "time/ms_per_iteration": 1000 * epoch / max(1, trainer.global_step - step),
            "time/images_per_second": (self.images - images) / epoch,
        }
        _log(trainer, speed)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ends the training stage and logs the seconds of the stages so far."""
        self._enter(None, trainer)
        self._log_seconds(trainer, "setup", "train", "validate")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the validation stage, which does not count as training."""
        if not trainer.sanity_checking:
            self._enter("validate", trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ends the validation stage and, during training, resumes the training stage."""
        if not trainer.sanity_checking:
            self._enter("train" if trainer.state.fn == "fit" else None, trainer)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the test stage."""
        self._enter("test", trainer)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ends the test stage and logs its seconds."""
        self._enter(None, trainer)
        self._log_seconds(trainer, "test")

    def _log_seconds(self, trainer: Trainer, *stages: str) -> None:
        _log(trainer, {f"time/{stage}_seconds": self.seconds[stage] for stage in stages})

    def state_dict(self) -> dict[str, Any]:
        """Returns the seconds and images so far."""
        seconds = dict(self.seconds)
        if self._stage is not None:
            seconds[self._stage] += time.perf_counter() - self._since
        return {"seconds": seconds, "images": self.images}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues from the counts of a checkpoint; set-up is that of this process."""
        self.seconds |= {"train": 0.0, "validate": 0.0} | {
            stage: state_dict["seconds"][stage] for stage in ("train", "validate")
        }
        self.images = state_dict["images"]


def _log(trainer: Trainer, values: dict[str, float]) -> None:
    for logger in trainer.loggers:
        logger.log_metrics(values, step=trainer.global_step)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
