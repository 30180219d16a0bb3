"""The properties of a machine that affect the speed and the numbers of the experiments."""

from __future__ import annotations

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import lightning
import torch

from data import DatasetError, source
from models.kernels import machine
from project.threads import cpu_quota

PACKAGES = ("numba", "triton", "torchvision", "tensorboard")


def surroundings() -> dict[str, Any]:
    """Returns devices, versions, threads, caches and data, by name."""
    return {
        "processor": machine.processor(),
        "architecture": machine.architecture() or None,
        "processors": os.cpu_count(),
        "allowed processors": _affinity(),
        "quota of processors": cpu_quota(),
        "torch's threads": torch.get_num_threads(),
        "devices": _devices(),
        "driver": machine.driver() or None,
        "CUDA of torch": torch.version.cuda,
        "ROCm of torch": torch.version.hip,
        "C compiler": next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightning": lightning.__version__,
        **{package: _installed(package) for package in PACKAGES},
        "cache": _cache(),
        "data": _data(),
    }


def _affinity() -> int | None:
    """Returns the number of processors that this process may use; None if unknown."""
    ask = getattr(os, "sched_getaffinity", None)
    return None if ask is None else len(ask(0))


def _devices() -> list[str]:
    found = []
    for number in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(number)
        found.append(
            f"cuda:{number} {properties.name}, {properties.total_memory / 2**30:.0f} GiB, "
            f"sm_{properties.major}{properties.minor}"
        )
    if torch.backends.mps.is_available():
        found.append("mps")
    return found


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cache() -> str:
    folder = machine.cache_folder()
    existing = next(place for place in (folder, *folder.resolve().parents) if place.exists())
    return f"{folder}, {'can' if os.access(existing, os.W_OK) else 'cannot'} be written"


def _data() -> str:
    root = source.resolve_root(None)
    try:
        images, _ = source.load(root, train=True)
    except DatasetError as error:
        return f"{root}: {error}"
    return f"{root}, {len(images):,} training images"
