"""Records the training loss of every single iteration."""

from __future__ import annotations

import sys
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.lib import format as npy

from callbacks.files import written_whole
from callbacks.run_folder import run_folder
from callbacks.tensorboard import TensorBoard

Losses = np.ndarray[Any, np.dtype[np.float32]]
NAME = "losses.npy"


class LossLog(Callback):
    """Writes each iteration's loss to losses.npy in the run folder.

    The loggers get every `log_every_n_steps`th loss, as train/loss.

    `training_step` must return a dict with "losses" (K,), fetched from the device once per block.
    The model must have `losses_taken`, a list of the losses () of an interrupted block.
    losses.npy is a valid file after every block; its n-th entry is the loss of iteration n. A
    resumed run continues at its checkpoint's iteration; in a new folder, it copies the earlier
    losses from the checkpoint's run. Losses that are no longer known are NaN.
    """

    reads_blocks = True
    logs_losses = True

    def __init__(self) -> None:
        self._file: LossFile | None = None
        self._step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Opens the file, truncated to the iterations of the checkpoint."""
        self._step = trainer.global_step
        folder = run_folder(trainer)
        if not trainer.is_global_zero or folder is None:
            return
        self._file = LossFile(folder / NAME, _earlier(trainer, folder))
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoard):
                logger.forget_after(self._step)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Writes the losses of one block."""
        losses = outputs["losses"].float().cpu().numpy()
        if trainer.is_global_zero:
            self._write(trainer, losses)

    def _write(self, trainer: Trainer, losses: Losses) -> None:
        first, self._step = self._step + 1, self._step + len(losses)
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoard) and every == 1:
                logger.log_series("train/loss", first, losses)
                continue
            for step, loss in enumerate(losses.tolist(), first):
                if every and step % every == 0:
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
        """Writes the losses of an interrupted block's finished iterations and closes the file."""
        taken: Any = pl_module.losses_taken
        missing = trainer.global_step - self._step
        # With several ranks, each knows only its own part of a loss.
        if self._file is not None and trainer.world_size == 1 and missing == len(taken) > 0:
            with suppress(OSError, RuntimeError):  # a full disk, a lost device: reported anyway
                self._write(trainer, np.array([float(loss) for loss in taken], np.float32))
        self._close()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _earlier(trainer: Trainer, folder: Path) -> Losses:
    """Returns the losses of the checkpoint's iterations, NaN where unknown."""
    losses = np.full(trainer.global_step, np.nan, np.float32)
    if not len(losses):
        return losses
    path = folder / NAME
    found = _read(path)
    if found is None and path.exists():
        names = (folder / f"losses-damaged-{number}.npy" for number in count())
        aside = next(name for name in names if not name.exists())
        path.rename(aside)
        print(f"{path} is damaged: set aside as {aside.name}; what it held is NaN", file=sys.stderr)
    elif found is None and trainer.ckpt_path is not None:
        # A checkpoint can be anywhere; that of a run is in a folder named checkpoints.
        checkpoints = Path(trainer.ckpt_path).resolve().parent
        if checkpoints.name == "checkpoints":
            found = _read(checkpoints.parent / NAME)
    if found is not None:
        found = found[: len(losses)]
        losses[: len(found)] = found
    return losses


def _read(path: Path) -> Losses | None:
    """Reads a file of losses; returns None if it is missing, damaged or something else."""
    try:
        with path.open("rb") as file:
            losses: Losses = npy.read_array(file, allow_pickle=False)
    except Exception:  # a damaged header may raise anything
        return None
    return losses if losses.dtype == np.float32 and losses.ndim == 1 else None


class LossFile:
    """A one-dimensional float32 .npy file that grows and can be read at any time.

    NumPy pads the header so that the length in it can be rewritten in place.

    Args:
        path: file to create or replace, atomically.
        losses: (n,) float32, the first entries.
    """

    def __init__(self, path: Path, losses: Losses) -> None:
        with written_whole(path) as file:
            _write_header(file, len(losses))
            file.write(losses.tobytes())
        self._file = path.open("r+b")
        self._length = len(losses)

    def append(self, losses: Losses) -> None:
        """Appends (K,) float32 entries: data before length, so that the file is always valid."""
        self._file.seek(0, 2)
        self._file.write(losses.tobytes())
        self._file.flush()
        self._length += len(losses)
        self._file.seek(0)
        _write_header(self._file, self._length)
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _write_header(file: BinaryIO, length: int) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": (length,)}
    npy.write_array_header_1_0(file, header)
