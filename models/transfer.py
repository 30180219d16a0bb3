"""Blocks on their way to a device."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor

from models.kernels import looks

HOOKS = ("transfer_batch_to_device", "on_after_batch_transfer")
"""With one of a user's own, what arrives need not be what was sent."""


def follow(model: LightningModule, sent: Any, arrived: Any) -> None:
    """Looks at the order of a block where it was, if it has been copied to a device and no more.

    Args:
        model: where it goes.
        sent: the batch, a block or what else a user's loader yields.
        arrived: what has become of it.
    """
    hosts = (model, getattr(model._trainer, "datamodule", None))
    if any(is_overridden(hook, host) for hook in HOOKS for host in hosts):
        return
    if isinstance(order := getattr(sent, "order", None), Tensor):
        looks.follow(arrived.order, order)
