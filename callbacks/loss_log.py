"""The training loss of every single iteration."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.lib import format as npy

from callbacks.run_folder import run_folder
from callbacks.tensorboard import TensorBoard

Losses = np.ndarray[Any, np.dtype[np.float32]]


class LossLog(Callback):
    """Writes each iteration's loss to the loggers (train/loss) and to losses.npy in the run folder.

    Needs from `training_step` a dict with "losses" (K,): fetched from the device once a block.
    losses.npy is a whole file after every block, entry i the loss of iteration i; a continued run
    carries on where its checkpoint stood, in a folder of its own with the losses of the folder that
    the checkpoint comes from, or NaN where there are none.
    """

    def __init__(self) -> None:
        self._file: LossFile | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Opens the file, cut to the iterations that the checkpoint knows."""
        folder = run_folder(trainer)
        if trainer.is_global_zero and folder is not None:
            self._file = LossFile(folder / "losses.npy", _earlier(trainer, folder))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Writes the losses of one block."""
        losses = outputs["losses"].float().cpu().numpy()
        if not trainer.is_global_zero:
            return
        first = trainer.global_step - len(losses) + 1
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoard):
                logger.log_series("train/loss", first, losses)
                continue
            for step, loss in enumerate(losses.tolist(), first):
                logger.log_metrics({"train/loss": loss}, step=step)
        if self._file is not None:
            self._file.append(losses)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Closes the file."""
        if stage == "fit":
            self._close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Closes the file of a run that ends early."""
        self._close()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _earlier(trainer: Trainer, folder: Path) -> Losses:
    """The losses of the iterations that the checkpoint knows."""
    losses = np.full(trainer.global_step, np.nan, np.float32)
    own = [folder] if trainer.ckpt_path is None else [folder, Path(trainer.ckpt_path).parents[1]]
    for path in (place / "losses.npy" for place in own):
        if len(losses) and path.exists():
            found = np.load(path)[: len(losses)]
            losses[: len(found)] = found
            break
    return losses


class LossFile:
    """A one-dimensional float32 .npy file that grows and can be read at any time.

    NumPy pads the header so that the length in it can be rewritten in place.

    Args:
        path: created, or replaced, whole, where it exists.
        losses: (n,) its first entries.
    """

    def __init__(self, path: Path, losses: Losses) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        self._file = temporary.open("wb")
        self._length = 0
        self._write_header()
        self.append(losses)
        os.replace(temporary, path)  # the file stays open under its new name

    def append(self, losses: Losses) -> None:
        """Adds (K,) float32 entries: first the data, then the length, so it is whole throughout."""
        self._file.seek(0, 2)
        self._file.write(losses.tobytes())
        self._file.flush()
        self._length += len(losses)
        self._write_header()

    def _write_header(self) -> None:
        self._file.seek(0)
        header = {"descr": "<f4", "fortran_order": False, "shape": (self._length,)}
        npy.write_array_header_1_0(self._file, header)
        self._file.flush()

    def close(self) -> None:
        """No entry follows."""
        self._file.close()
