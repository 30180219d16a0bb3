"""Trains the linear classifier on one image at a time, in one compiled loop for each block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from models import nets
from models.kernels import sgd
from models.learners import obstacles
from models.learners.learner import Block, Learner, Run
from models.losses import Loss

if TYPE_CHECKING:
    from models.classifier import Classifier


class Sequential(Learner):
    """Trains `models.linear.Linear` by `models.kernels.sgd`."""

    name = "sequential"
    devices = ("cpu", "cuda", "mps", "xpu")

    def __init__(self, model: Classifier, run: Run) -> None:
        self._model: Any = model
        self._backend = model.hparams["backend"]
        scale: Any = self._model.net.scale
        version = sgd.choose(self._backend, run.device, scale.dtype)
        if version != "reference":
            images = torch.zeros(1, len(scale), dtype=torch.uint8, device=run.device)
            sgd.compile_ahead(version, images, scale)

    @classmethod
    def obstacle(cls, model: Classifier, run: Run) -> str | None:
        """Refuses other sizes of mini-batches, autocast, hooks, and models that change the step."""
        if run.batch_size != 1:
            return f"the mini-batches have {run.batch_size or 'unknown numbers of'} images"
        if not run.precision.endswith("-true"):
            return f"the precision is {run.precision}"
        if onlooker := run.onlooker():
            return onlooker
        return (
            obstacles.own_part(model, ("forward", "inputs", "losses", "batch"))
            or _another_loss(model)
            or obstacles.another_net(model, nets.LinearClassifier, {"output": nn.Linear})
            or obstacles.another_descent(model, run)
        )

    def __call__(self, block: Block, rates: Tensor) -> Tensor:
        """See `Learner`.

        Raises:
            ValueError: a mini-batch has another size than 1.
        """
        if (block.sizes != 1).any():
            raise ValueError(f"expected mini-batches of one image, got {block.sizes.max()}")
        output, scale = self._model.net.output, self._model.net.scale
        return sgd.sequential_sgd(
            block.images,
            block.labels,
            block.order,
            output.weight.detach(),
            output.bias.detach(),
            rates,
            self._model.loss,
            scale=scale,
            backend=self._backend,
        )


def _another_loss(model: Any) -> str | None:
    return None if type(model.loss) is Loss else "the loss is none of models.losses"
