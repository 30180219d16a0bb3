"""Trains through autograd, one mini-batch at a time: any model, optimizer, strategy and hook."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor

from models import progress
from models.kernels.looks import send
from models.layers import conv_pool
from models.learners.learner import Block, Learner, Run

if TYPE_CHECKING:
    from models.classifier import Classifier

Step = Callable[[Tensor, Tensor, float], Tensor]
"""Maps inputs, targets and the weight of each image to the loss (), and takes the step."""

Differentiator = Callable[[Tensor, Tensor, float], Tensor]
"""Maps inputs, targets and the weight of each image to the losses (B,), detached; every parameter's
`grad` becomes the gradient of their weighted sum."""


class Eager(Learner):
    """The fallback for any model: takes each step as Lightning's automatic optimization would.

    Lightning calls every hook of every callback around each backward pass and step, which takes
    0.3 ms on a laptop even if none of them does anything; so the step goes through Lightning only
    if one does.

    Raises:
        MisconfigurationException: several optimizers, or a setting that would be ignored.
    """

    name = "eager"

    def __init__(self, model: Classifier, run: Run) -> None:
        check(model)
        self._model = model
        self._is_scheduled = run.is_scheduled
        is_heard = run.onlooker() is not None or run.precision != "32-true"
        self._step = self._heard_step if is_heard else unheard_step(model, by_autograd(model))
        if "mixed" not in run.precision:
            with conv_pool.compiling():
                conv_pool.compile_ahead(model.net, run.device, gradient=True)

    @classmethod
    def obstacle(cls, model: Classifier, run: Run) -> None:
        """Returns None: autograd computes whatever the model defines."""

    def __call__(self, block: Block, rates: Tensor) -> Tensor:
        """See `Learner`."""
        return take_steps(self._model, block, rates if self._is_scheduled else None, self._step)

    def _heard_step(self, x: Tensor, targets: Tensor, share: float) -> Tensor:
        model, optimizer = self._model, the_optimizer(self._model)
        place = model.current_epoch, model.global_step % model.iterations_per_epoch()
        losses: list[Tensor] = []

        def closure() -> Tensor:
            each: Tensor = model.losses(model(x), targets)
            loss = each.sum() * share
            callbacks: list[Callback] = model.trainer.callbacks  # type: ignore[attr-defined]
            for callback in callbacks:
                callback.on_before_zero_grad(model.trainer, model, optimizer.optimizer)
            model.on_before_zero_grad(optimizer.optimizer)
            model.optimizer_zero_grad(*place, optimizer.optimizer)
            model.manual_backward(loss)
            losses.append(loss.detach())
            return losses[-1]

        model.optimizer_step(*place, optimizer, closure)
        if not losses:
            raise MisconfigurationException(
                f"optimizer_step of {type(model).__name__} must call its optimizer_closure"
            )
        return losses[0]


def take_steps(model: Classifier, block: Block, rates: Tensor | None, step: Step) -> Tensor:
    """Takes the iterations of a block, one after the other; returns their losses (K,).

    Args:
        model: the model to train; the losses are appended to its `losses_taken`.
        block: this rank's part of the mini-batches.
        rates: (K,) learning rates; None keeps the optimizer's own, and steps their schedulers.
        step: takes one step.
    """
    groups = the_optimizer(model).param_groups
    # Ranks may hold unequal parts; the mean over ranks of these losses is the global mean.
    shares = (model.trainer.world_size / block.totals).tolist()
    for k, (part, share) in enumerate(zip(_parts(model, block), shares, strict=True)):
        if rates is not None:
            for group in groups:
                group["lr"] = float(rates[k])
        x, labels = model.batch(block, *part)
        model.losses_taken.append(step(x, model.targets(x, labels), share))
        if rates is None:
            _step_schedulers(model, "step", model.global_step)
    if rates is None and model.trainer.is_last_batch:
        _step_schedulers(model, "epoch", model.current_epoch + 1)
    return torch.stack(model.losses_taken)


def _parts(model: Classifier, block: Block) -> Iterator[tuple[Tensor, ...]]:
    """Arguments of `Classifier.batch` for each mini-batch: indices, and random numbers if any."""
    numbers = model.draw(block)
    # Once a block: a copy in every iteration would take as long as its operators.
    wholes = [block.order] if numbers is None else [block.order, send(numbers, block.images.device)]
    sizes = block.sizes.tolist()
    return zip(*(whole.split_with_sizes(sizes) for whole in wholes), strict=True)


def _step_schedulers(model: Classifier, interval: str, count: int) -> None:
    """Steps the schedulers that are due, as Lightning does in automatic optimization."""
    for config in model.trainer.lr_scheduler_configs:
        if config.interval == interval and count % config.frequency == 0:
            model.lr_scheduler_step(config.scheduler, None)


def unheard_step(model: Classifier, differentiate: Differentiator) -> Step:
    """A step without Lightning's hooks; only its step counter advances."""

    def step(x: Tensor, targets: Tensor, share: float) -> Tensor:
        optimizer = the_optimizer(model).optimizer
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None
        loss = differentiate(x, targets, share).sum() * share
        optimizer.step()
        progress.count_iterations(model.trainer, 1)
        return loss

    return step


def by_autograd(model: Classifier) -> Differentiator:
    """A differentiator that computes the model's losses and their gradient by autograd."""

    def differentiate(x: Tensor, targets: Tensor, share: float) -> Tensor:
        each: Tensor = model.losses(model(x), targets)
        # The gradient of their weighted sum, with two operators less.
        torch.autograd.backward(each, torch.full_like(each, share))
        return each.detach()

    return differentiate


def the_optimizer(model: Classifier) -> LightningOptimizer:
    """The optimizer of the training."""
    optimizer = model.optimizers()
    assert isinstance(optimizer, LightningOptimizer)
    return optimizer


def check(model: Classifier) -> None:
    """Refuses settings that would be ignored.

    Raises:
        MisconfigurationException: several optimizers, a scheduler that waits for a metric, or
            gradient clipping by the hook of automatic optimization.
    """
    name, trainer = type(model).__name__, model.trainer
    if len(trainer.optimizers) != 1:
        raise MisconfigurationException(
            f"configure_optimizers of {name} must return one optimizer, "
            f"got {len(trainer.optimizers)}"
        )
    if is_overridden("configure_gradient_clipping", model):
        raise MisconfigurationException(
            f"{name} has its own configure_gradient_clipping, which Lightning does not call where "
            "a training_step takes several steps; clip in on_before_optimizer_step instead"
        )
    for config in trainer.lr_scheduler_configs:
        if isinstance(config.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            raise MisconfigurationException(
                f"configure_optimizers of {name} returns ReduceLROnPlateau, which has no metric "
                "to wait for here; override learning_rates, or choose another scheduler"
            )
