"""How the iterations of a block are taken: by one of a few learners, chosen once a training."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NamedTuple

from models.learners.eager import Eager
from models.learners.learner import Block, Learner, Run
from models.learners.recorded import RecordingError
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
            obstacle = kind.obstacle(model, run)
            if obstacle is None:
                return Choice(kind, why)
            why = why or f"not {kind.name}: {obstacle}"
    return Choice(Eager, why)


def start(model: Classifier, run: Run) -> tuple[Learner, str]:
    """The chosen learner, ready to learn, and why it is not a faster one."""
    kind, why = choose(model, run)
    try:
        return kind(model, run), why
    except RecordingError as error:  # known by trying alone
        print(f"Without a CUDA graph, which is slower: {error}", file=sys.stderr)
        return Eager(model, run), f"not {kind.name}: {error}"
