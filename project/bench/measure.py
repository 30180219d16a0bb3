"""Measures times by interleaved repeats, with their median and spread."""

from __future__ import annotations

import platform
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from datetime import date
from typing import Any, NamedTuple

import lightning
import torch

from callbacks.results import git_revision
from models.kernels.machine import architecture, processor

ACCELERATORS = {"cpu": "cpu", "cuda": "gpu"}
"""Lightning's names for the types of devices."""

SLICE = 0.02  # seconds that one repeat of one function lasts at least


class Timing(NamedTuple):
    """Seconds of several repeats."""

    seconds: list[float]

    @property
    def median(self) -> float:
        """The median of the repeats."""
        return statistics.median(self.seconds)

    def __str__(self) -> str:
        low, high = 1000 * min(self.seconds), 1000 * max(self.seconds)
        return f"{1000 * self.median:.3g} ms ({low:.3g} to {high:.3g})"


def interleaved(functions: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, Timing]:
    """Times functions in turns, so that what disturbs the machine disturbs them alike.

    Returns:
        Seconds per call, one entry for each repeat.
    """
    calls = {}
    for name, function in functions.items():
        function()  # compiles, allocates
        calls[name] = max(1, round(SLICE / _seconds(function, 3)))
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            seconds[name].append(_seconds(function, calls[name]))
    return {name: Timing(values) for name, values in seconds.items()}


def _seconds(function: Callable[[], Any], calls: int) -> float:
    if torch.cuda.is_available():
        return _device_seconds(function, calls)
    start = time.perf_counter()
    for _ in range(calls):
        function()
    return (time.perf_counter() - start) / calls


def _device_seconds(function: Callable[[], Any], calls: int) -> float:
    """Returns seconds per call between two events on the device, which is otherwise idle."""
    start, end = (
        torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        for _ in range(2)
    )
    torch.cuda.synchronize()
    start.record()
    for _ in range(calls):
        function()
    end.record()
    end.synchronize()
    milliseconds: float = start.elapsed_time(end)
    return milliseconds / 1000 / calls


def peak_flops(device: torch.device, repeats: int = 10) -> float:
    """Returns the floating-point operations per second of a large float32 matrix product."""
    size = 1536 if device.type == "cpu" else 8192
    a = torch.randn(size, size, device=device)
    best = min(interleaved({"product": lambda: a @ a}, repeats)["product"].seconds)
    return 2 * size**3 / best


def has_compiler() -> bool:
    """Whether torch.compile can run on the CPU; prints a line if it cannot."""
    found = shutil.which("c++") is not None
    if not found:
        print("torch.compile is left out: it needs a C++ compiler", file=sys.stderr)
    return found


CPU = torch.device("cpu")


def devices() -> list[torch.device]:
    """Returns the devices on which to measure: the CPU, and a GPU if there is one."""
    return [CPU, torch.device("cuda")] if torch.cuda.is_available() else [CPU]


def trainer_options(device: torch.device) -> list[str]:
    """Returns the options with which project.fit trains on this device only."""
    return [f"--trainer.accelerator={ACCELERATORS[device.type]}", "--trainer.devices=1"]


def rounded(value: Any) -> Any:
    """Rounds all numbers in lists and records to four digits, the last of which is noise.

    >>> rounded([{"seconds": (0.0123456, 2)}])
    [{'seconds': [0.01235, 2]}]
    """
    if isinstance(value, dict):
        return {name: rounded(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(one) for one in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def machine() -> dict[str, Any]:
    """Returns hardware, versions, commit and day, to be recorded with every figure."""
    return {
        "processor": processor(),
        "architecture": architecture() or None,
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightning": lightning.__version__,
        "commit": git_revision(),
        "day": date.today().isoformat(),
    }
