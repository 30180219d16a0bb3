"""The mean training loss of an epoch, for callbacks that monitor it and loggers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Callback
from torch import Tensor

from models.kernels.looks import send

if TYPE_CHECKING:
    from models.classifier import Classifier


class EpochLoss:
    """Logs train/loss once an epoch, from `training_step`, so that subclasses may use any hook.

    Lightning takes 0.2 ms to log, which is long beside small steps. If a callback has
    `logs_losses`, it logs the loss of each iteration, and loggers do not get the mean too.
    """

    def __init__(self) -> None:
        self._blocks: list[tuple[Tensor, int]] = []

    def add(self, model: Classifier, loss: Tensor, images: int) -> None:
        """Adds a block, given its mean loss () and its number of images."""
        self._blocks.append((loss, images))
        trainer = model.trainer
        is_over = trainer.should_stop or model.global_step == trainer.max_steps
        if not (trainer.is_last_batch or is_over):
            return
        losses = torch.stack([loss for loss, _ in self._blocks])
        counts = [images for _, images in self._blocks]
        # Nothing here synchronises with a GPU.
        weights = send(torch.tensor(counts, dtype=losses.dtype), losses.device)
        self._blocks = []
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        is_logged = any(getattr(callback, "logs_losses", False) for callback in callbacks)
        mean = (losses * weights).sum() / weights.sum()
        options: dict[str, Any] = {"on_epoch": True, "on_step": False, "batch_size": sum(counts)}
        model.log("train/loss", mean, logger=not is_logged, **options)
