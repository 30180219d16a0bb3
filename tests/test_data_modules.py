from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from helpers import idx

from data import DatasetError, FourNineDataModule, MNISTDataModule, source


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
    assert module.train_dataloader().iterations == 600
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


def test_it_can_be_printed(tiny_root):
    text = str(set_up(MNISTDataModule(str(tiny_root), val_size=30)))
    assert text == f"MNISTDataModule(root={str(tiny_root)!r}, batch_size=100, val_size=30, seed=0)"


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


def test_variable_and_option_know_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert MNISTDataModule("~/digits").root == tmp_path / "digits"
    monkeypatch.setenv("MNIST_ROOT", "~/digits")
    assert MNISTDataModule().root == tmp_path / "digits"
    assert str(MNISTDataModule("~nobody-of-that-name/digits").root) == "~nobody-of-that-name/digits"


def test_another_set_is_taken_as_it_is_and_said_once(foreign_root, capsys):
    module = set_up(MNISTDataModule(str(foreign_root), verify=False))
    module.prepare_data()
    assert len(module.train_images) == 60
    assert len(module.test_images) == 20
    (line,) = capsys.readouterr().out.splitlines()
    assert f"{source.raw_folder(foreign_root)} is taken as it is" in line


def test_another_set_is_looked_through_before_anything_trains(foreign_root):
    labels = source.raw_folder(foreign_root) / "t10k-labels-idx1-ubyte"
    labels.write_bytes(idx(torch.full((20,), 26, dtype=torch.uint8)))
    with pytest.raises(DatasetError, match="label 0 of t10k-labels-idx1-ubyte is 26"):
        MNISTDataModule(str(foreign_root), verify=False).prepare_data()


@pytest.mark.parametrize(
    ("half", "labels", "words"),
    [
        ("train", [4] * 60, "none of the 60 training images in .* shows a 9$"),
        ("train", [5] * 60, "shows a 4 or a 9"),
        ("t10k", [5] * 20, "none of the 20 test images in .* shows a 4 or a 9"),
        ("t10k", [4] * 20, None),
    ],
)
def test_two_digits_must_occur(foreign_root, half, labels, words):
    for name, values in (("train", [4, 9] * 30), ("t10k", [4, 9] * 10), (half, labels)):
        path = source.raw_folder(foreign_root) / f"{name}-labels-idx1-ubyte"
        path.write_bytes(idx(torch.tensor(values, dtype=torch.uint8)))
    module = FourNineDataModule(root=str(foreign_root), verify=False)
    if words is None:
        module.prepare_data()
        return
    with pytest.raises(DatasetError, match=words):
        module.prepare_data()
