"""Checkpoints from which a run goes on as if it had never stopped."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


class SyncedCheckpointIO(TorchCheckpointIO):
    """Files that are whole or not there, whatever stops: the process, the disk or the machine.

    Lightning's own go through the folder for temporary files, from which renaming may be copying.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Writes a temporary file beside the path, waits for the disk, and renames it."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        content = io.BytesIO()  # torch.save into a file of a full disk hides what the system says
        torch.save(checkpoint, content)
        try:
            with temporary.open("wb") as file:
                file.write(content.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError as error:
            reason = f"{error.strerror}; the checkpoints before this one are whole"
            raise OSError(error.errno, reason, str(path)) from error
        finally:
            temporary.unlink(missing_ok=True)


class BlockCheckpoint(ModelCheckpoint):
    """Saves after the last block of an epoch, and after the block where `max_steps` ends the run.

    Keeps the last two: one is whole, should the machine die while the other is written.

    Lightning's own saves at the epoch's end. It then counts an epoch that `max_steps` cut as over,
    a cut block as complete, and, where the continued run has `max_steps`, the epoch twice.

    Needs from the training loader a `state_dict` with "images_done" in this epoch (0 at its end)
    and the whole "blocks_done".

    Args:
        every: iterations between two checkpoints, at the end of a block; None saves every epoch.
        minutes: between two checkpoints, likewise.
    """

    def __init__(self, every: int | None = None, minutes: float | None = None) -> None:
        super().__init__(filename="{epoch}-{step}", monitor="step", mode="max", save_top_k=2)
        self.every = every
        self.minutes = minutes
        self._saved_at = 0
        self._saved_time = 0.0

    @property
    def last_path(self) -> str:
        """The newest checkpoint; empty before the first."""
        return self.best_model_path  # the one with the most steps

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Counts from where the run begins."""
        super().on_train_start(trainer, pl_module)
        self._saved_at = trainer.global_step
        self._saved_time = time.monotonic()
        if trainer.is_global_zero:
            self._clear_up()

    def _clear_up(self) -> None:
        """Removes what a process left that was killed while it saved."""
        folder = Path(str(self.dirpath))
        for left in folder.glob("*.tmp"):
            left.unlink()
        kept = [path for path in map(Path, self.best_k_models) if path.exists()]
        if kept:  # the run goes on from one of them
            oldest = min(path.stat().st_mtime_ns for path in kept)
            for path in folder.glob("epoch=*-step=*.ckpt"):
                if path.stat().st_mtime_ns < oldest:
                    path.unlink()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves, if this block is one to save after."""
        step = trainer.global_step
        if (
            self._is_due(trainer)
            or step == trainer.max_steps
            or not _position(trainer).get("images_done")
        ):
            candidates = self._monitor_candidates(trainer)
            # Lightning would take the step that was logged last.
            self._save_topk_checkpoint(trainer, candidates | {"step": torch.tensor(step)})
            self._saved_at = step
            self._saved_time = time.monotonic()

    def _is_due(self, trainer: Trainer) -> bool:
        if self.every is not None and trainer.global_step - self._saved_at >= self.every:
            return True
        if self.minutes is None:
            return False
        # By the clock of one rank, since all have to save together.
        late = time.monotonic() - self._saved_time >= 60 * self.minutes
        return bool(trainer.strategy.broadcast(late))

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
