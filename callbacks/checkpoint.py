"""Checkpoints from which a run resumes as if it had never stopped."""

from __future__ import annotations

import io
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint

from callbacks.files import written_whole
from callbacks.finite import NonFiniteLossError
from callbacks.interrupt import Interrupted, held
from callbacks.run_folder import run_folder

KEPT = 2  # so that one is whole if the machine fails while the other is written
SAVED_AT = "saved_at"
"""Checkpoint key of the time of saving, in seconds since 1970."""
UNFINISHED = re.compile(r"\.epoch=\d+-step=\d+(-v\d+)?\.ckpt\.[0-9a-f]{8}\.tmp")


class SyncedCheckpointIO(TorchCheckpointIO):
    """Saves checkpoints atomically: a crash of process, disk or machine leaves no partial file.

    Lightning's default writes into the system's temporary folder; moving from there may copy.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Writes a temporary file beside the path, syncs it to disk and renames it."""
        content = io.BytesIO()  # on a full disk, torch.save to a file hides the system's error
        torch.save(checkpoint, content)
        try:
            with written_whole(Path(path)) as file:
                file.write(content.getbuffer())
        except OSError as error:
            reason = f"{error.strerror}; the checkpoints before this one are whole"
            raise OSError(error.errno, reason, str(path)) from error


class BestCheckpoint(ModelCheckpoint):
    """Keeps the checkpoint of the best validation, as best-epoch=...ckpt beside the others.

    Args:
        monitor: metric to compare; higher is better.
    """

    def __init__(self, monitor: str = "val/accuracy") -> None:
        super().__init__(monitor=monitor, mode="max", filename="best-{epoch}-{step}")

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Sets `dirpath` to the checkpoint folder of the run, if it has one."""
        folder = run_folder(trainer)
        if folder is not None:
            self.dirpath = str(folder / "checkpoints")
        super().setup(trainer, pl_module, stage)


class BlockCheckpoint(Checkpoint):
    """Saves a checkpoint after every epoch, and one of the last weights however a run ends.

    In between, it can save every so many iterations or minutes, at the end of a block. It keeps
    the last two checkpoints that it wrote and never deletes other files.

    Checkpoints are saved after the validation that is due at the same point, since Lightning does
    not repeat it when the run resumes. A training whose loss became NaN is not saved.

    With several ranks, it reads `is_between_blocks` of the training loader.

    Args:
        every: iterations between two checkpoints within an epoch; None for none by count.
        minutes: minutes between two checkpoints within an epoch; None for none by time.

    Attributes:
        dirpath: folder of the checkpoints; by default `checkpoints` in the run's folder.
        last_path: the newest checkpoint; empty before the first.
    """

    reads_blocks = True

    def __init__(self, every: int | None = None, minutes: float | None = None) -> None:
        self.every = every
        self.minutes = minutes
        self.dirpath: str | os.PathLike[str] | None = None
        self.last_path = ""
        self._written: list[str] = []  # names in `dirpath`, the oldest first
        self._saved_step: int | None = None  # None before the training
        self._saved_time = 0.0
        self._saved_at = 0.0

    @property
    def best_model_path(self) -> str:
        """The newest checkpoint, in the attribute from which Lightning takes the one to test."""
        return self.last_path

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Sets `dirpath`, to the same folder on all ranks, unless it is set already."""
        if self.dirpath is None:
            folder = run_folder(trainer) or trainer.log_dir or trainer.default_root_dir
            self.dirpath = Path(folder) / "checkpoints"

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts counting, and deletes the temporary files of interrupted saves."""
        self.last_path = str(trainer.ckpt_path or "")
        self._saved_step = trainer.global_step
        self._saved_time = time.monotonic()
        folder = self._folder
        self._written = [name for name in self._written if (folder / name).is_file()]
        if trainer.is_global_zero and folder.is_dir():
            for path in folder.iterdir():
                if UNFINISHED.fullmatch(path.name):  # its process was killed
                    path.unlink()

    @property
    def _folder(self) -> Path:
        assert self.dirpath is not None, "set by setup"
        return Path(self.dirpath)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Saves the state after the previous block, if a checkpoint is due."""
        if self._is_due(trainer):
            self._save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves the end of the epoch, complete or cut short."""
        self._save(trainer)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Saves the state before the exception; failing that, prints the reason."""
        if trainer.state.fn != "fit" or isinstance(exception, NonFiniteLossError):
            return
        # Ranks that stopped inside a block know only their own part of its losses.
        if trainer.world_size > 1 and not getattr(
            trainer.train_dataloader, "is_between_blocks", True
        ):
            return
        try:
            # A signal stops all ranks together; otherwise, some may never reach a barrier.
            self._save(trainer, together=isinstance(exception, Interrupted))
        except OSError as error:
            print(f"The last iterations are not saved: {error}", file=sys.stderr)

    def _is_due(self, trainer: Trainer) -> bool:
        assert self._saved_step is not None
        if self.every is not None and trainer.global_step - self._saved_step >= self.every:
            return True
        if self.minutes is None:
            return False
        # One rank's clock decides, since all ranks have to save together.
        late = time.monotonic() - self._saved_time >= 60 * self.minutes
        return bool(trainer.strategy.broadcast(late))

    def _save(self, trainer: Trainer, *, together: bool = True) -> None:
        step = trainer.global_step
        if self._saved_step in (None, step) or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        with held():
            self._save_as(trainer, step, together)

    def _save_as(self, trainer: Trainer, step: int, together: bool) -> None:
        self._saved_step, self._saved_time = step, time.monotonic()
        path = self._free_path(f"epoch={trainer.current_epoch}-step={step}")
        if together:
            path = trainer.strategy.broadcast(path)
        # Before the new one is written, so that the list in it agrees with the folder.
        if trainer.is_global_zero:
            for name in self._written[: 1 - KEPT]:
                (self._folder / name).unlink(missing_ok=True)
        self._written = [*self._written[1 - KEPT :], path.name]
        if together:
            trainer.save_checkpoint(path, weights_only=False)
        else:
            checkpoint = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
            trainer.strategy.save_checkpoint(checkpoint, path)
        self.last_path = str(path)

    def _free_path(self, stem: str) -> Path:
        """Returns an unused path, since an earlier run may have saved the same step."""
        path, version = self._folder / f"{stem}.ckpt", 0
        while path.exists():
            version += 1
            path = self._folder / f"{stem}-v{version}.ckpt"
        return path

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Adds the time of saving, which increases even if the clock was set back."""
        self._saved_at = max(time.time(), self._saved_at + 1e-3)
        checkpoint[SAVED_AT] = self._saved_at

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Ensures that later checkpoints have a later time than the loaded one."""
        self._saved_at = checkpoint.get(SAVED_AT, 0.0)

    def state_dict(self) -> dict[str, Any]:
        """Returns the names of the checkpoints written and their folder."""
        return {"folder": str(self._folder.resolve()), "written": self._written}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the names of the checkpoints written, if the folder is the same."""
        if self.dirpath is not None and state_dict.get("folder") == str(self._folder.resolve()):
            self._written = state_dict["written"]
