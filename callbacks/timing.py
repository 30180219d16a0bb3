"""Where the seconds of a run go."""

from __future__ import annotations

import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class Timing(Callback):
    """Measures set-up, training, validation and test apart, and logs the speed of every epoch.

    Needs from `training_step` a dict with "losses" (K,) and "images" (a count). Waits for the
    device only where one stage ends and the next begins. A continued run adds to its checkpoint's
    seconds.

    Attributes:
        seconds: "setup" (from here to the first iteration), "train" (validation left out),
            "validate" and "test".
        images: images learnt from.
    """

    reads_blocks = True

    def __init__(self) -> None:
        self.seconds = {"setup": 0.0, "train": 0.0, "validate": 0.0, "test": 0.0}
        self.images = 0
        self._stage: str | None = "setup"
        self._since = time.perf_counter()

    @property
    def images_per_second(self) -> float | None:
        """Images learnt from per second of training; None before the first."""
        return self.images / self.seconds["train"] if self.seconds["train"] else None

    def _enter(self, stage: str | None, trainer: Trainer) -> None:
        """Books the time since the last call on the stage that ends now."""
        _synchronize(trainer.strategy.root_device)
        now = time.perf_counter()
        if self._stage is not None:
            self.seconds[self._stage] += now - self._since
        self._stage, self._since = stage, now

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set-up ends here."""
        # A run continued inside an epoch has no start of that epoch.
        self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remembers where the epoch began."""
        self._enter("train", trainer)
        self._epoch_start = self.seconds["train"], self.images, trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts images."""
        self.images += outputs["images"]

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs the epoch's seconds and speed over iterations."""
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
        """Training ends here; logs the seconds of the stages behind it."""
        self._enter(None, trainer)
        self._log_seconds(trainer, "setup", "train", "validate")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validation inside training is not training time."""
        if not trainer.sanity_checking:
            self._enter("validate", trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Back to training, if it was validation inside training."""
        if not trainer.sanity_checking:
            self._enter("train" if trainer.state.fn == "fit" else None, trainer)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Test begins."""
        self._enter("test", trainer)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Test ends; logs its seconds."""
        self._enter(None, trainer)
        self._log_seconds(trainer, "test")

    def _log_seconds(self, trainer: Trainer, *stages: str) -> None:
        _log(trainer, {f"time/{stage}_seconds": self.seconds[stage] for stage in stages})

    def state_dict(self) -> dict[str, Any]:
        """Seconds and images so far, for a checkpoint."""
        seconds = dict(self.seconds)
        if self._stage is not None:
            seconds[self._stage] += time.perf_counter() - self._since
        return {"seconds": seconds, "images": self.images}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues counting from a checkpoint; set-up is that of this process."""
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
