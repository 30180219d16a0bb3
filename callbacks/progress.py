"""The progress bar of a training."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from torch import Tensor


class ProgressBar(RichProgressBar):
    """Lightning's rich bar in iterations, drawn four times a second however fast the blocks come.

    Needs from `training_step` a dict with "losses" (K,), and from the model `iterations_per_epoch`.
    """

    reads_blocks = True

    def __init__(self) -> None:
        super().__init__(refresh_rate=4)
        self._losses: Tensor | None = None

    @property
    def total_train_batches(self) -> int | float:
        """Iterations in an epoch."""
        total: int = self.trainer.lightning_module.iterations_per_epoch()  # type: ignore[operator]
        return total

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keeps the losses of the block, without waiting for the device; counts its iterations."""
        self._losses = outputs["losses"]
        before = int((trainer.global_step - 1) % self.total_train_batches)
        super().on_train_batch_end(trainer, pl_module, outputs, batch, before)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """The mean loss of a block; the version is in the name of the run folder already."""
        metrics: dict[str, Any] = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        if self._losses is not None:
            metrics["loss"] = f"{self._losses.mean():.4f}"
        return metrics

    def _get_train_description(self, current_epoch: int) -> str:
        last = self.trainer.max_epochs
        end = "" if last in (None, -1) else f"/{last}"
        return f"Epoch {current_epoch + 1}{end}"
