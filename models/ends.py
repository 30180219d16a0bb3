"""When a training ends, as far as its learning rates depend on it, and what is said of that."""

from __future__ import annotations

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from models import schedules
from models.schedules import Length, Schedule


def length_of(trainer: Trainer, epoch: int) -> Length:
    """To the last epoch, each with so many iterations; where there is none, to `max_steps`.

    Beside a last epoch `max_steps` is where a run stops, to be gone on with later.
    """
    if trainer.max_epochs is not None and trainer.max_epochs >= 0:
        return Length(epoch, epoch * trainer.max_epochs)
    return Length(epoch, trainer.max_steps if trainer.max_steps > 0 else None)


def warn_of_another(schedule: Schedule, iteration: int, before: int | None, now: Length) -> None:
    """Says so where a training goes on to another end than it began for, if rates depend on it."""
    if before is None or now.total is None:
        return
    if other := schedules.says_other(schedule, iteration, now._replace(total=before), now):
        rank_zero_warn(
            f"The training was to end after {before:,} iterations, and now after {now.total:,}: "
            f"its learning rate goes on at {other}"
        )


def say_where_it_stops(schedule: Schedule, stop: int, length: Length) -> None:
    """Says so where `max_steps` stops a training at a rate of its schedule's middle."""
    if length.total is None or not 0 < stop < length.total:
        return
    if other := schedules.says_other(schedule, stop, length._replace(total=stop), length):
        rank_zero_info(
            f"max_steps stops the training at iteration {stop:,} of the {length.total:,} that its "
            f"learning rate is for, at {other}. For one that ends there: --trainer.max_epochs=-1"
        )
