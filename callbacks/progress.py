"""How far a training is: a bar in a terminal, a line a minute in a log."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar, Timer
from torch import Tensor

from callbacks.pace import Pace


class ProgressBar(RichProgressBar):
    """Lightning's rich bar in iterations, drawn four times a second however fast the blocks come.

    Needs from `training_step` a dict with "losses" (K,), and from the model `iterations_per_epoch`.
    """

    reads_blocks = True

    def __init__(self) -> None:
        super().__init__(refresh_rate=4)
        self._losses: Tensor | None = None
        self._pace: Pace | None = None

    @property
    def total_train_batches(self) -> int | float:
        """Iterations in an epoch."""
        total: int = self.trainer.lightning_module.iterations_per_epoch()  # type: ignore[operator]
        return total

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The speed is taken from here on."""
        self._pace = Pace(share_done(trainer) or 0.0)
        super().on_train_start(trainer, pl_module)

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
        last, done = self.trainer.max_epochs, share_done(self.trainer)
        end = "" if last in (None, -1) else f"/{last}"
        left = None if done is None or self._pace is None else self._pace.left(done)
        return f"Epoch {current_epoch + 1}{end}" + ("" if left is None else f", {left} left")


class ProgressLines(Callback):
    """A line a minute on standard error: the iteration, the mean loss of its block, the time left.

    Needs from `training_step` a dict with "losses" (K,), and from the model `iterations_per_epoch`.
    """

    reads_blocks = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The speed is taken from here on."""
        self._pace = Pace(share_done(trainer) or 0.0)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Waits for the device where a line is due, which is seldom."""
        if not trainer.is_global_zero or not self._pace.is_due():
            return
        last = last_iteration(trainer)
        end = "" if last is None else f" of {last:,}"
        what = f"iteration {trainer.global_step:,}{end}, loss {outputs['losses'].mean():.4f}"
        self._pace.say(what, share_done(trainer))


def last_iteration(trainer: Trainer) -> int | None:
    """Where the training ends by its number of epochs or of steps; None where neither says."""
    epoch: int = trainer.lightning_module.iterations_per_epoch()  # type: ignore[operator]
    ends = [] if trainer.max_epochs in (None, -1) else [trainer.max_epochs * epoch]
    ends += [] if trainer.max_steps == -1 else [trainer.max_steps]
    return min(ends, default=None)


def share_done(trainer: Trainer) -> float | None:
    """How much of a training lies behind, from 0 to 1; None where it has no end.

    Of its iterations or of its `max_time`, whichever ends it sooner.
    """
    shares = []
    if last := last_iteration(trainer):
        shares.append(trainer.global_step / last)
    for timer in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(timer, Timer) and (left := timer.time_remaining()) is not None:
            shares.append(timer.time_elapsed() / (timer.time_elapsed() + left))
    return max(shares, default=None)
