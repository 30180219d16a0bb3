"""How the iterations of a block are taken: by one of a few learners, chosen once a training."""

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
    """Who learns, and why nobody faster."""

    learner: type[Learner]
    why_not_faster: str
    """What stands in the way of the fastest that this kind of model has on this device, or ""."""


def choose(model: Classifier, run: Run) -> Choice:
    """The first of the model's learners that nothing stands in the way of, else `Eager`."""
    why = ""
    for kind in model.learners:
        if run.device.type in kind.devices:
            obstacle = model.failed.get(kind) or kind.obstacle(model, run)
            if obstacle is None:
                return Choice(kind, why)
            why = why or f"not {kind.name}: {obstacle}"
    return Choice(Eager, why)


def start(model: Classifier, run: Run, among: type[Learner] = Learner) -> tuple[Learner, str]:
    """The chosen learner, ready to learn, and why it is not a faster one.

    Args:
        model: what learns.
        run: the training.
        among: the class of all learners that may be chosen.

    Raises:
        ObstacleError: another one would be chosen.
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
