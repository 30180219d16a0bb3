"""The progress bar of a training."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from torch import Tensor


class ProgressBar(RichProgressBar):
    """Lightning's rich bar, drawn four times a second however fast the blocks come.

    Needs from `training_step` a dict with "losses" (K,).
    """

    def __init__(self) -> None:
        super().__init__(refresh_rate=4)
        self._losses: Tensor | None = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keeps the losses of the block, without waiting for the device."""
        self._losses = outputs["losses"]
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """The mean loss of a block; the version is in the name of the run folder already."""
        metrics: dict[str, Any] = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        if self._losses is not None:
            metrics["loss"] = f"{self._losses.mean():.4f}"
        return metrics
