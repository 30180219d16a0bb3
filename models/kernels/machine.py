"""Describes this machine: its processor, its GPUs, and where results about them are kept."""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path

import torch


def processor() -> str:
    """The processor's name, as far as the system reports it."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            names = [line.split(":", 1)[1] for line in file if line.startswith("model name")]
        return names[0].strip()
    except (OSError, IndexError):
        return platform.processor() or platform.machine()


def architecture() -> str:
    """LLVM's name of the processor's kind, such as znver5; empty without LLVM.

    It decides how wide the CPU kernels' vectors are (`lanes.py`).
    """
    try:
        from llvmlite import binding

        return str(binding.get_host_cpu_name())
    except Exception:  # LLVM is missing or damaged, or does not know the processor.
        return ""


def driver() -> str:
    """The version of NVIDIA's driver; empty if the system does not report it."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8")
    except OSError:
        return ""
    return next((word for word in text.split() if word.replace(".", "").isdigit()), "")


def describe(device: torch.device) -> str:
    """The name of a device, such as "NVIDIA H200" or the processor's."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return processor() if device.type == "cpu" else device.type


def sources(folder: Path = Path(__file__).parent) -> bytes:
    """A hash of all Python files in a folder, by default those of the kernels."""
    whole = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        whole.update(path.relative_to(folder).as_posix().encode())
        whole.update(hashlib.sha256(path.read_bytes()).digest())
    return whole.digest()


def cache_folder() -> Path:
    """The folder for what was found out about this machine; it need not exist yet."""
    if chosen := os.environ.get("NUMBA_CACHE_DIR"):
        return Path(chosen)
    beside = Path(__file__).parent / "__pycache__"
    if os.access(beside if beside.exists() else beside.parent, os.W_OK):
        return beside
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lenet5"
