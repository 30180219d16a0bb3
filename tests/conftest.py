"""Fixtures: the real digits, a tiny stand-in, and a place to run in."""

from __future__ import annotations

import hashlib
import os
import socket
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from data import DatasetError, source

REPOSITORY = Path(__file__).parent.parent

TUNED = yaml.safe_load((REPOSITORY / "project/configs/lenet5-original-tuned.yaml").read_text())[
    "model"
]
"""What makes a LeNet5 the tuned one."""


@pytest.fixture(scope="session")
def mnist_root() -> Path:
    """The real MNIST; a test that needs it may be skipped on a laptop, but fails under CI."""
    root = (REPOSITORY / source.resolve_root(None)).resolve()
    try:
        source.ensure(root)
    except DatasetError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    return root


@pytest.fixture
def tiny_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """130 training and 70 test images, random, in MNIST's layout and with checksums that fit."""
    root = tmp_path / "tiny"
    content = write_set(root, train=130, test=70)
    checksums = {name: hashlib.md5(content[name]).hexdigest() for name in content}
    monkeypatch.setattr(source, "CHECKSUMS", checksums)
    return root


@pytest.fixture
def foreign_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """60 training and 20 test images in MNIST's layout that are not MNIST's; nothing is fetched."""
    root = tmp_path / "foreign"
    write_set(root, train=60, test=20)
    monkeypatch.setattr(source, "_sources", lambda: pytest.fail("it fetches"))
    return root


def write_set(root: Path, *, train: int, test: int) -> dict[str, bytes]:
    """Random images and labels in MNIST's layout; returns the content of the four files."""
    generator = torch.Generator().manual_seed(0)
    folder = source.raw_folder(root)
    folder.mkdir(parents=True)
    content = {}
    for prefix, count in (("train", train), ("t10k", test)):
        images = torch.randint(0, 256, (count, 28, 28), generator=generator, dtype=torch.uint8)
        labels = torch.randint(0, 10, (count,), generator=generator, dtype=torch.uint8)
        content[f"{prefix}-images-idx3-ubyte"] = idx(images)
        content[f"{prefix}-labels-idx1-ubyte"] = idx(labels)
    for name in content:
        (folder / name).write_bytes(content[name])
    return content


def idx(array: Tensor) -> bytes:
    """The array as an IDX file of unsigned bytes."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.dim()]) + sizes + array.numpy().tobytes()


def free_port() -> int:
    """A port at which nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


class Curve(Callback):
    """Keeps the losses of a training, of every iteration."""

    def __init__(self) -> None:
        self.losses: list[Tensor] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keeps those of a block."""
        self.losses.append(outputs["losses"])


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, so that runs/ lands in it."""
    folder = tmp_path / "workplace"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(autouse=True)
def _keep_warning_filters():
    """The programs adjust warnings for a whole process; a test is only a part of one."""
    with warnings.catch_warnings():
        yield
