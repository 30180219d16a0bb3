"""The transfer of blocks to a device."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor

from models.kernels import looks

HOOKS = ("transfer_batch_to_device", "on_after_batch_transfer")
"""If a user overrides one of these, the batch on the device may differ from the one sent."""


def follow(model: LightningModule, sent: Any, arrived: Any) -> None:
    """Reads the order of a block on the host, unless the transfer may have changed it.

    Args:
        model: the model that receives the batch.
        sent: the batch on the host: a block, or whatever a user's loader yields.
        arrived: the batch on the device.
    """
    hosts = (model, getattr(model._trainer, "datamodule", None))
    if any(is_overridden(hook, host) for hook in HOOKS for host in hosts):
        return
    if isinstance(order := getattr(sent, "order", None), Tensor):
        looks.follow(arrived.order, order)
