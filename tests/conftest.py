"""Fixtures: the real digits, a tiny stand-in, and a place to run in."""

from __future__ import annotations

import hashlib
import os
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor

from data import DatasetError, source

REPOSITORY = Path(__file__).parent.parent


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
    generator = torch.Generator().manual_seed(0)
    root = tmp_path / "tiny"
    folder = source.raw_folder(root)
    folder.mkdir(parents=True)
    checksums = {}
    for prefix, count in (("train", 130), ("t10k", 70)):
        images = torch.randint(0, 256, (count, 28, 28), generator=generator, dtype=torch.uint8)
        labels = torch.randint(0, 10, (count,), generator=generator, dtype=torch.uint8)
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            name, content = f"{prefix}-{kind}-ubyte", idx(array)
            (folder / name).write_bytes(content)
            checksums[name] = hashlib.md5(content).hexdigest()
    monkeypatch.setattr(source, "CHECKSUMS", checksums)
    return root


def idx(array: Tensor) -> bytes:
    """The array as an IDX file of unsigned bytes."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.dim()]) + sizes + array.numpy().tobytes()


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
