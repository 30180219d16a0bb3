"""Collects from the Trainer what decides between learners."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor

from models.learners.learner import Run
from models.learners.obstacles import is_scheduled

if TYPE_CHECKING:
    from models.classifier import Classifier

HOOKS = (
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
)
"""Hooks of modules and callbacks around a backward pass and a step."""

METHODS = (
    "backward",
    "manual_backward",
    "configure_gradient_clipping",
    "optimizer_step",
    "optimizer_zero_grad",
)
"""Methods of modules that perform a backward pass or a step."""


def run_of(model: Classifier) -> Run:
    """The properties of the training of `model`; available from `on_fit_start` on."""
    trainer = model.trainer
    optimizer = trainer.optimizers[0] if len(trainer.optimizers) == 1 else None
    strategy, all_reduce = _joined(trainer)
    return Run(
        device=trainer.strategy.root_device,
        precision=_precision(trainer),
        ranks=trainer.world_size,
        batch_size=getattr(getattr(trainer, "datamodule", None), "batch_size", None),
        optimizer=optimizer,
        is_scheduled=not trainer.lr_scheduler_configs and is_scheduled(model, optimizer),
        listeners=tuple(_listeners(model, trainer)),
        strategy=strategy,
        all_reduce=all_reduce,
        timeout=getattr(trainer.strategy, "_timeout", None),
    )


def _joined(trainer: Trainer) -> tuple[str, Callable[[Tensor], Any] | None]:
    """How the training is distributed, and the sum over its ranks, if nothing else joins them."""
    strategy, ranks = trainer.strategy, trainer.world_size
    if type(strategy) is SingleDeviceStrategy:
        return "", None
    if type(strategy) is not DDPStrategy or strategy._ddp_comm_hook is not None:
        return f"the strategy is {type(strategy).__name__}", None
    return f"there are {ranks} ranks", torch.distributed.all_reduce


def _precision(trainer: Trainer) -> str:
    plugin = type(trainer.precision_plugin)
    is_lightnings = plugin.__module__.startswith("lightning.pytorch.plugins.precision.")
    return str(trainer.precision) if is_lightnings else plugin.__name__


def _listeners(model: Classifier, trainer: Trainer) -> Iterator[str]:
    if trainer._detect_anomaly or torch.is_anomaly_enabled():
        yield "detect_anomaly looks into backward passes"
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    heard: list[tuple[LightningModule | Callback, type, Sequence[str]]] = [
        (model, LightningModule, (*HOOKS, *METHODS)),
        *((callback, Callback, HOOKS) for callback in callbacks),
    ]
    for listener, base, hooks in heard:
        for hook in hooks:
            if is_overridden(hook, listener, parent=base):
                yield f"{type(listener).__name__} has its own {hook}"
