"""The length of a training run, on which its learning rates depend, and messages about it."""

from __future__ import annotations

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from models import schedules
from models.schedules import Length, Schedule


def length_of(trainer: Trainer, epoch: int) -> Length:
    """The length up to `max_epochs` of `epoch` iterations each, or without it up to `max_steps`.

    If both are set, `max_steps` only interrupts the run, which can be continued later.
    """
    if trainer.max_epochs is not None and trainer.max_epochs >= 0:
        return Length(epoch, epoch * trainer.max_epochs)
    return Length(epoch, trainer.max_steps if trainer.max_steps > 0 else None)


def warn_of_another(schedule: Schedule, iteration: int, before: int | None, now: Length) -> None:
    """Warns if a continued training has another end than before and its rates depend on that."""
    if before is None or now.total is None:
        return
    if other := schedules.says_other(schedule, iteration, now._replace(total=before), now):
        rank_zero_warn(
            f"The training was to end after {before:,} iterations, and now after {now.total:,}: "
            f"its learning rate goes on at {other}"
        )


def say_where_it_stops(schedule: Schedule, stop: int, length: Length) -> None:
    """Tells the user if `max_steps` stops a training in the middle of its schedule."""
    if length.total is None or not 0 < stop < length.total:
        return
    if other := schedules.says_other(schedule, stop, length._replace(total=stop), length):
        rank_zero_info(
            f"max_steps stops the training at iteration {stop:,} of the {length.total:,} that its "
            f"learning rate is for, at {other}. For one that ends there: --trainer.max_epochs=-1"
        )
