"""Limits the threads of a program to the CPU quota of its container."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


def limit_threads(ranks: int = 1) -> None:
    """Limits the threads of torch, and of the kernels with it, to those that a CPU quota allows.

    Torch considers the processors to which a process is bound, but not the quota. OMP_NUM_THREADS
    is the user's choice and is left alone.

    Args:
        ranks: processes on this machine that share the quota.
    """
    quota = cpu_quota()
    if quota is None or "OMP_NUM_THREADS" in os.environ:
        return
    import torch  # takes a second, which --help must not

    threads = max(1, min(torch.get_num_threads(), math.ceil(quota)) // ranks)
    torch.set_num_threads(threads)
    if ranks > 1:
        # Otherwise Lightning divides all processors among its ranks.
        os.environ["OMP_NUM_THREADS"] = str(threads)


def cpu_quota(cgroups: Path = CGROUPS, own: Path = OWN) -> float | None:
    """Returns the number of processors of the quota; None without a quota or cgroups.

    Args:
        cgroups: folder at which the cgroups are mounted.
        own: file that names the cgroup of this process in each hierarchy.
    """
    return min(_quotas(cgroups, own), default=None)


def _quotas(cgroups: Path, own: Path) -> Iterator[float]:
    """Yields the quotas of the process's cgroups and of all their parents."""
    lines: list[str] = []
    with suppress(OSError):
        lines = own.read_text().splitlines()
    for line in lines:
        names: tuple[str, ...]
        _, controllers, path = line.split(":", 2)
        if not controllers:  # version 2, which has one hierarchy
            names, mount = ("cpu.max",), cgroups
        elif "cpu" in controllers.split(","):
            names, mount = ("cpu.cfs_quota_us", "cpu.cfs_period_us"), cgroups / "cpu"
        else:
            continue
        inner = mount / path.lstrip("/")
        for folder in (inner, *inner.parents):
            # In a container, its own cgroup is at the mount, whatever the path says.
            if folder.is_relative_to(mount):
                with suppress(OSError, ValueError):
                    words = [word for name in names for word in (folder / name).read_text().split()]
                    # "max" or -1 where there is no quota.
                    quota, period = map(float, words)
                    if quota > 0:
                        yield quota / period
