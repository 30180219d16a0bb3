"""Fixtures: the real digits, a tiny stand-in, and a place to run in."""

from __future__ import annotations

import hashlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import REPOSITORY, is_open, write_set
from hypothesis import settings
from nursery import Nursery, opened

from data import DatasetError, source
from models.kernels import notice
from models.learners import graph

# On a busy machine a deadline says nothing.
settings.register_profile("whole", deadline=None)
settings.register_profile("fast", deadline=None, max_examples=20)


def pytest_configure(config: pytest.Config) -> None:
    """Draws a fifth of the examples, where a test does not say how many, while one works.

    Workers share the processors.
    """
    settings.load_profile("fast" if config.option.markexpr == "not slow" else "whole")
    if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
        # OpenMP's threads spin while they wait: with as many in each of the workers as there are
        # processors, a training took five times as long.
        torch.set_num_threads(max(1, torch.get_num_threads() // int(workers)))
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # in the processes that tests start


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


@pytest.fixture(autouse=True)
def _nobody_wonders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a test is the first that compiles is no matter of what it prints."""
    monkeypatch.setattr(notice, "SECONDS", 3600)


@pytest.fixture
def torch_that_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before 2.11 it records nothing, which is no matter where nothing is recorded in earnest."""
    if torch.torch_version.TorchVersion(torch.__version__) < "2.11":
        monkeypatch.setattr(torch, "__version__", "2.11.0")


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """Starts runs of project.fit in processes of their own."""
    with opened(tmp_path_factory.mktemp("nursery")) as found:
        yield found


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


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, so that runs/ lands in it."""
    folder = tmp_path / "workplace"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def tiny(tiny_root: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, and the tiny data set found as a user's would be."""
    monkeypatch.setenv("MNIST_ROOT", str(tiny_root))
    return workplace


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuses what Windows does: to rename, replace or delete a file that is open, and fcntl."""

    def guarded(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*paths: Any, **options: Any) -> Any:
            for path in paths:
                if Path(path).is_file() and is_open(path):
                    raise PermissionError(13, "The process cannot access the file", str(path))
            return function(*paths, **options)

        return call

    for name in ("replace", "rename", "unlink", "remove"):
        monkeypatch.setattr(os, name, guarded(getattr(os, name)))
    monkeypatch.setitem(sys.modules, "fcntl", None)


@pytest.fixture(autouse=True)
def _keep_warning_filters():
    """The programs adjust warnings for a whole process; a test is only a part of one."""
    with warnings.catch_warnings():
        yield


@pytest.fixture
def recordings(monkeypatch: pytest.MonkeyPatch, torch_that_records: None) -> list[int]:
    """Counts the calls of what stands in for recordings; a GPU records."""
    calls: list[int] = []

    def repeat(function: Callable[[], None], device: torch.device) -> Callable[[], None]:
        for _ in range(graph.WARM_UPS):
            function()
        calls.append(0)
        number = len(calls) - 1

        def launch() -> None:
            calls[number] += 1
            function()

        return launch

    if not torch.cuda.is_available():
        monkeypatch.setattr(graph, "record", repeat)
    return calls
