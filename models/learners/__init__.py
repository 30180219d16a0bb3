"""Learners: several ways to take the iterations of a block, the fastest eligible one is chosen."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NamedTuple

from models.learners.eager import Eager
from models.learners.learner import Block, Learner, ObstacleError, Run
from models.learners.run import run_of

if TYPE_CHECKING:
    from models.classifier import Classifier

__all__ = ["Block", "Choice", "Learner", "Run", "choose", "run_of", "start"]


class Choice(NamedTuple):
    """The chosen learner, and why no faster one was chosen."""

    learner: type[Learner]
    why_not_faster: str
    """The obstacle of the fastest learner of this kind of model on this device, or ""."""


def choose(model: Classifier, run: Run) -> Choice:
    """Chooses the first of the model's learners that has no obstacle, else `Eager`."""
    why = ""
    for kind in model.learners:
        if run.device.type in kind.devices:
            obstacle = model.failed.get(kind) or kind.obstacle(model, run)
            if obstacle is None:
                return Choice(kind, why)
            why = why or f"not {kind.name}: {obstacle}"
    return Choice(Eager, why)


def start(model: Classifier, run: Run, among: type[Learner] = Learner) -> tuple[Learner, str]:
    """Starts the chosen learner, or the next one if that fails; also returns why none is faster.

    Args:
        model: the model to train.
        run: the training.
        among: only its subclasses are started.

    Raises:
        ObstacleError: a learner of another class would be chosen.
    """
    while True:
        kind, why = choose(model, run)
        if not issubclass(kind, among):
            raise ObstacleError(why)
        try:
            return kind(model, run), why
        except ObstacleError as error:
            model.failed[kind] = str(error)
            print(f"Not using the {kind.name} learner, so slower: {error}", file=sys.stderr)
