from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from data import DatasetError, FourNineDataModule, MNISTDataModule


def set_up(module, *stages):
    module.prepare_data()
    for stage in stages or ("fit", "test"):
        module.setup(stage)
    return module


def labels(loader):
    return torch.cat([block.labels[block.order] for block in loader])


def test_real_mnist_has_the_published_sizes(mnist_root):
    module = set_up(MNISTDataModule(str(mnist_root)))
    assert module.train_images.shape == (60_000, 28, 28)
    assert module.train_images.dtype == torch.uint8
    assert len(module.train_dataloader()) == 6
    assert torch.equal(labels(module.train_dataloader()).bincount(), module.train_labels.bincount())
    assert len(labels(module.test_dataloader())) == 10_000
    assert module.val_dataloader() == []


def test_real_four_nine_has_the_published_sizes(mnist_root):
    module = set_up(FourNineDataModule(root=str(mnist_root)))
    assert len(module.train_images) == 11_791
    assert len(module.test_images) == 1_991
    assert module.train_labels.unique().tolist() == [-1, 1]
    assert len(labels(module.train_dataloader())) == 50_000


def test_validation_images_are_taken_from_the_training_set(tiny_root):
    module = set_up(MNISTDataModule(str(tiny_root), val_size=30, batch_size=7))
    train, held_out = set(module.train_index.tolist()), set(module.val_index.tolist())
    assert len(train) == 100
    assert len(held_out) == 30
    assert not train & held_out
    assert torch.equal(labels(module.val_dataloader()), module.train_labels[module.val_index])
    assert len(labels(module.train_dataloader())) == 100


def test_split_depends_on_the_seed_only(tiny_root):
    first, again, other = (
        set_up(MNISTDataModule(str(tiny_root), val_size=30, seed=seed)).val_index
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 7])
def test_evaluation_sees_every_image_once_on_any_number_of_ranks(tiny_root, world_size):
    module = set_up(MNISTDataModule(str(tiny_root), eval_batch_size=9))
    seen = []
    for rank in range(world_size):
        strategy = SimpleNamespace(root_device=torch.device("cpu"))
        module.trainer = SimpleNamespace(global_rank=rank, world_size=world_size, strategy=strategy)
        seen.append(labels(module.test_dataloader()))
    assert torch.equal(torch.cat(seen), module.test_labels)


def test_digits_are_labelled_in_the_order_given(tiny_root):
    module = set_up(FourNineDataModule((7, 2), root=str(tiny_root)))
    everything = set_up(MNISTDataModule(str(tiny_root)))
    for digit, sign in ((7, -1), (2, 1)):
        expected = everything.train_images[everything.train_labels == digit]
        assert torch.equal(module.train_images[module.train_labels == sign], expected)


@pytest.mark.parametrize("digits", [(4, 4), (4, 10), (-1, 9)])
def test_bad_digits_are_named(digits):
    with pytest.raises(ValueError, match=r"digits must be two different ones .* got \["):
        FourNineDataModule(digits)


@pytest.mark.parametrize(
    "option", ["batch_size", "block_size", "eval_batch_size", "iterations", "val_size"]
)
def test_bad_size_is_named(option):
    with pytest.raises(ValueError, match=f"{option} must be . or more, got -1"):
        FourNineDataModule(**{option: -1})


def test_validation_set_must_leave_something_to_learn_from(tiny_root):
    with pytest.raises(DatasetError, match="val_size must be below 130, got 130"):
        set_up(MNISTDataModule(str(tiny_root), val_size=130))


def test_root_is_the_option_then_the_variable_then_the_default(monkeypatch):
    monkeypatch.delenv("MNIST_ROOT", raising=False)
    assert str(MNISTDataModule().root) == "mnist_data"
    monkeypatch.setenv("MNIST_ROOT", "elsewhere")
    assert str(MNISTDataModule().root) == "elsewhere"
    assert str(MNISTDataModule("given").root) == "given"
