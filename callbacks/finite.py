"""Stops a training whose loss became NaN or infinite."""

from __future__ import annotations

from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer

SHOWN = 10  # images of a mini-batch that a message names


class NonFiniteLossError(Exception):
    """The loss became NaN or infinite; the message says where, and what to do."""


class FiniteLoss(Callback):
    """Stops the run at the first loss that is NaN or infinite, before a checkpoint keeps it.

    It checks once per block, so a few more iterations may have followed. `training_step` must
    return a dict with "losses" (K,), and blocks must have `order` and `sizes`.
    """

    reads_blocks = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Checks the losses of one block.

        Raises:
            NonFiniteLossError: a loss is not finite; the message names the iteration, its images
                and the last good checkpoint.
        """
        losses = outputs["losses"].float().cpu().numpy()
        finite = np.isfinite(losses)
        if finite.all():
            return
        position = int(finite.argmin())
        iteration = trainer.global_step - len(losses) + position + 1
        start = int(batch.sizes[:position].sum())
        images = batch.order[start : start + int(batch.sizes[position])].tolist()
        more = ", ..." if len(images) > SHOWN else ""
        saved = (getattr(callback, "last_path", "") for callback in trainer.checkpoint_callbacks)
        raise NonFiniteLossError(
            f"the loss is {losses[position]} at iteration {iteration} (training images "
            f"{', '.join(map(str, images[:SHOWN]))}{more}); lower --model.lr. "
            f"Last good checkpoint: {next(filter(None, saved), 'none yet')}."
        )
