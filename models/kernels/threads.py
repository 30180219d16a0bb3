"""How many threads the compiled kernels use: as many as torch, which users and Lightning set."""

from __future__ import annotations

import numba
import torch


def _start() -> int:
    """Starts Numba's threads; returns how many there are.

    With OpenMP that sets torch's number too, since both have one runtime: two ranks on two
    processors would then have four threads, and each iteration take ten times as long.
    """
    before = torch.get_num_threads()
    threads: int = numba.get_num_threads()
    torch.set_num_threads(before)
    return threads


MOST = _start()


def use_threads(tasks: int) -> int:
    """Lets Numba use torch's number of threads, for no more than there are tasks; returns it."""
    threads = max(1, min(torch.get_num_threads(), MOST, tasks))
    numba.set_num_threads(threads)
    return threads
