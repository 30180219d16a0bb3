"""Progress of a training: a bar in a terminal, some lines in a log."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar, Timer
from torch import Tensor

from callbacks.pace import Pace


class ProgressBar(RichProgressBar):
    """Lightning's rich bar in iterations, drawn four times a second however fast the blocks come.

    `training_step` must return a dict with "losses" (K,); the model must have
    `iterations_per_epoch`.
    """

    reads_blocks = True

    def __init__(self) -> None:
        super().__init__(refresh_rate=4)
        self._losses: Tensor | None = None
        self._pace: Pace | None = None

    @property
    def total_train_batches(self) -> int | float:
        """The number of iterations in an epoch."""
        total: int = self.trainer.lightning_module.iterations_per_epoch()  # type: ignore[operator]
        return total

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts measuring the speed."""
        self._pace = Pace(shares_done(trainer))
        super().on_train_start(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keeps the block's losses, without waiting for the device, and counts its iterations."""
        self._losses = outputs["losses"]
        before = int((trainer.global_step - 1) % self.total_train_batches)
        super().on_train_batch_end(trainer, pl_module, outputs, batch, before)
        if self.progress is not None and self.train_progress_bar_id is not None:
            description = self._get_train_description(trainer.current_epoch)
            self.progress.update(self.train_progress_bar_id, description=description)

    def configure_columns(self, trainer: Trainer) -> list[Any]:
        """Leaves out the time of an epoch, since the description has what is left of all epochs."""
        columns: list[Any] = super().configure_columns(trainer)
        return [column for column in columns if type(column).__name__ != "CustomTimeColumn"]

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Adds the block's mean loss and drops the version, which the run folder's name has."""
        metrics: dict[str, Any] = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        if self._losses is not None:
            metrics["loss"] = f"{self._losses.mean():.4f}"
        return metrics

    def _get_train_description(self, current_epoch: int) -> str:
        last, done = self.trainer.max_epochs, shares_done(self.trainer)
        end = "" if last in (None, -1) else f"/{last}"
        left = None if self._pace is None else self._pace.left(done)
        return f"Epoch {current_epoch + 1}{end}" + ("" if left is None else f", {left} left")


class ProgressLines(Callback):
    """Prints epoch, iteration, mean loss of its block and remaining time on standard error.

    `training_step` must return a dict with "losses" (K,); the model must have
    `iterations_per_epoch`.
    """

    reads_blocks = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts measuring the speed."""
        self._pace = Pace(shares_done(trainer))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Prints a line if one is due, and only then waits for the device."""
        if not trainer.is_global_zero or not self._pace.is_due():
            return
        last = last_iteration(trainer)
        end = "" if last is None else f" of {last:,}"
        where = f"epoch {trainer.current_epoch + 1}, iteration {trainer.global_step:,}{end}"
        loss = f"loss {outputs['losses'].mean():.4f}"
        self._pace.say(f"{where}, {loss}", shares_done(trainer))


def last_iteration(trainer: Trainer) -> int | None:
    """Returns the last iteration by `max_epochs` and `max_steps`; None if neither is set."""
    epoch: int = trainer.lightning_module.iterations_per_epoch()  # type: ignore[operator]
    ends = [] if trainer.max_epochs in (None, -1) else [trainer.max_epochs * epoch]
    ends += [] if trainer.max_steps == -1 else [trainer.max_steps]
    return min(ends, default=None)


def shares_done(trainer: Trainer) -> list[float]:
    """Returns the shares of a training that are done, from 0 to 1: of iterations and of `max_time`.

    Limits that are not set have none.
    """
    last = last_iteration(trainer)
    shares = [trainer.global_step / last] if last else []
    for timer in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(timer, Timer) and (left := timer.time_remaining()) is not None:
            elapsed = timer.time_elapsed()
            shares.append(elapsed / max(elapsed + left, 1e-9))
    return shares
