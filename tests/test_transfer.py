"""What is known of a block that goes to a device; "meta" is one where nothing can be looked at."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from helpers import trainer
from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.connectors.data_connector import _DataHookSelector

from models.kernels import looks
from models.linear import Linear

META = torch.device("meta")


class Batch(NamedTuple):
    """As a loader yields it."""

    order: object


class Shifting(Linear):
    """Learns from other images than the loader says."""

    def on_after_batch_transfer(self, batch, dataloader_idx):
        return batch._replace(order=batch.order + 100)


class Elsewhere(LightningDataModule):
    """Brings another order to the device."""

    def transfer_batch_to_device(self, batch, device, dataloader_idx):
        return Batch((batch.order + 100).to(device))


class Unpacking(Linear):
    """Makes something else of its batches."""

    def on_after_batch_transfer(self, batch, dataloader_idx):
        return batch.order


@pytest.fixture
def looked_at(monkeypatch):
    found = []
    monkeypatch.setattr(looks, "_look", lambda x: found.append(x.device.type) or (0, 9))
    return found


def arrived(model, batch, data=None):
    if data:
        model.trainer = trainer(None)
        model.trainer._data_connector._datahook_selector = _DataHookSelector(model, data)
        model.trainer.datamodule = data
        model.trainer.strategy.connect(model)
    return model._apply_batch_transfer_handler(batch, META, 0)


def test_a_copied_order_is_looked_at_where_it_was(looked_at):
    moved = arrived(Linear(), Batch(torch.arange(3)))
    looks.extremes(moved.order)
    assert looked_at == ["cpu"]


@pytest.mark.parametrize(("model", "data"), [(Shifting, None), (Linear, Elsewhere())])
def test_an_order_that_changes_on_its_way_is_looked_at_where_it_arrives(model, data, looked_at):
    moved = arrived(model(), Batch(torch.arange(3)), data)
    looks.extremes(moved.order)
    assert looked_at[-1] == "meta"


def test_batches_of_other_kinds_pass(looked_at):
    assert arrived(Unpacking(), Batch(torch.arange(3))).device == META
    assert arrived(Linear(), Batch([1, 2])) == Batch([1, 2])
    assert looked_at == []
