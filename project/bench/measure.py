"""How everything here is measured: interleaved repeats, the median, and the spread beside it."""

from __future__ import annotations

import platform
import statistics
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import torch


class Timing(NamedTuple):
    """Seconds of several repeats."""

    seconds: list[float]

    @property
    def median(self) -> float:
        """Of the repeats."""
        return statistics.median(self.seconds)

    def __str__(self) -> str:
        low, high = 1000 * min(self.seconds), 1000 * max(self.seconds)
        return f"{1000 * self.median:.3g} ms ({low:.3g} to {high:.3g})"


def machine() -> dict[str, Any]:
    """Hardware and versions, to stand beside every figure."""
    return {
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightning": lightning.__version__,
    }


def processor() -> str:
    """The processor's name, as far as the system tells it."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            names = [line.split(":", 1)[1] for line in file if line.startswith("model name")]
        return names[0].strip()
    except (OSError, IndexError):
        return platform.processor() or platform.machine()
