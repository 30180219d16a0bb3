"""What a machine has, as far as it decides how fast and how right the experiments run."""

from __future__ import annotations

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import lightning
import torch

from data import DatasetError, source
from models.kernels import machine

PACKAGES = ("numba", "triton", "torchvision", "tensorboard")


def surroundings() -> dict[str, Any]:
    """Devices, versions, threads, caches and data, by name."""
    return {
        "processor": machine.processor(),
        "processors": os.cpu_count(),
        "allowed processors": _affinity(),
        "quota of processors": _quota(),
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
    """Processors that the system lets this process use; None where it does not tell."""
    ask = getattr(os, "sched_getaffinity", None)
    return None if ask is None else len(ask(0))


def _quota() -> float | None:
    """Processors' worth of time that a container may use; None where there is no limit."""
    for name, period in (
        ("/sys/fs/cgroup/cpu.max", None),
        ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us"),
    ):
        try:
            words = Path(name).read_text(encoding="utf-8").split()
            words += Path(period).read_text(encoding="utf-8").split() if period else []
            limit, each = map(float, words)
        except (OSError, ValueError):  # another version of cgroups, or "max"
            continue
        if limit > 0:
            return limit / each
    return None


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
