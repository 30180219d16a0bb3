"""Checkpoints from which a run goes on as if it had never stopped."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


class BlockCheckpoint(ModelCheckpoint):
    """Saves after the last block of an epoch, and after the block where `max_steps` ends the run.

    Lightning's own saves at the epoch's end. It then counts an epoch that `max_steps` cut as over,
    a cut block as complete, and, where the continued run has `max_steps`, the epoch twice.

    Needs from the training loader a `state_dict` with "images_done" in this epoch (0 at its end)
    and the whole "blocks_done".
    """

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves, if this block is one to save after."""
        is_over = trainer.global_step == trainer.max_steps
        if is_over or not _position(trainer).get("images_done"):
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """All is saved."""

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Lets Lightning's count of blocks agree with the loader's."""
        position = _position(trainer)
        if position.get("images_done"):
            progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]
            surplus = progress["ready"] - position["blocks_done"]
            for count in ("ready", "started", "processed", "completed"):
                progress[count] -= surplus


def _position(trainer: Trainer) -> dict[str, int]:
    position: dict[str, int] = getattr(trainer.train_dataloader, "state_dict", dict)()
    return position
