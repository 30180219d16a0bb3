"""Sums over the ranks of one machine, in shared memory.

Through gloo a sum is several messages over sockets, each of which has to wake a sleeping process:
on two processors that takes longer than LeNet-5's gradient.
"""

from __future__ import annotations

import os
import socket
import tempfile
import time
import uuid
import weakref
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.constants import default_pg_timeout

from models.kernels.tickets import is_reached, show

LINE = 64
"""Bytes of a cache line: no two ranks write to the same one"""

LOOKS = 20_000
"""How often a rank polls for another, for some tenths of a millisecond, before it sleeps"""

SLEEPS = 5e-5, 1e-3
"""Seconds of a sleep, at first and at most: a rank that waits leaves the processor to others"""

PATIENCE = 1.0
"""Seconds between checks whether the other rank is alive"""


class SharedSum:
    """Sums float32 tensors over ranks that share a file in memory, in the order of the ranks.

    Each rank has two rows, which it uses alternately: a rank that begins the next sum does not
    overwrite what others still read, and the sum after that begins only when all have read.

    Args:
        path: a file of `bytes_for(ranks, size)` zeros.
        rank: this rank.
        ranks: number of ranks.
        size: numbers in a tensor.
        timeout: how long to wait for another rank; None is torch's default.

    Raises:
        OSError: the file does not exist or cannot be locked.
    """

    def __init__(
        self, path: Path, rank: int, ranks: int, size: int, timeout: timedelta | None
    ) -> None:
        import fcntl  # not available on Windows

        self._file = path.open("r+b")
        weakref.finalize(self, self._file.close)
        # The lock ends with the process, however that ends.
        fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, rank)
        memory = np.memmap(self._file, np.uint8, "r+", shape=bytes_for(ranks, size))
        self._counts = memory[: ranks * LINE].view(np.int64)
        self._rows = torch.from_numpy(memory[ranks * LINE :].view(np.float32)).view(2, ranks, size)
        self._rank, self._ranks = rank, ranks
        self._timeout = default_pg_timeout if timeout is None else timeout
        self._sums = 0

    def __call__(self, tensor: Tensor) -> None:
        """Replaces `tensor` (size,) by its sum over all ranks.

        Raises:
            RuntimeError: another rank has ended, or does not come in time.
        """
        rows = self._rows[self._sums % 2]
        self._sums += 1
        rows[self._rank] = tensor
        show(self._counts, self._place(self._rank), self._sums)
        for other in range(self._ranks):
            self._wait_for(other)
        torch.sum(rows, 0, out=tensor)

    def _wait_for(self, other: int) -> None:
        begin = asked = time.monotonic()
        looks, (sleep, longest) = LOOKS, SLEEPS
        while not is_reached(self._counts, self._place(other), self._sums, looks):
            time.sleep(sleep)
            looks, sleep, now = 1, min(2 * sleep, longest), time.monotonic()
            if now - begin > self._timeout.total_seconds():
                raise RuntimeError(f"rank {other} did not come within {self._timeout}")
            if now - asked > PATIENCE:
                asked = now
                self._check_alive(other)

    def _check_alive(self, other: int) -> None:
        import fcntl

        with suppress(BlockingIOError, PermissionError):  # then its process holds the lock
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, other)
            # Begins as gloo's message does.
            raise RuntimeError(f"Connection closed by peer: rank {other} has ended")

    def _place(self, rank: int) -> int:
        return rank * LINE // self._counts.itemsize


def bytes_for(ranks: int, size: int) -> int:
    """The size of the file that `SharedSum` needs."""
    return ranks * (LINE + 2 * 4 * size)


def shared(
    all_reduce: Callable[[Tensor], Any], size: int, timeout: timedelta | None
) -> Callable[[Tensor], Any]:
    """A `SharedSum` for float32 (size,) if all ranks are on one machine, else `all_reduce`.

    All ranks call it at the same time.
    """
    rank, ranks = dist.get_rank(), dist.get_world_size()
    own: SharedSum | None = None
    path = _new_file(bytes_for(ranks, size)) if rank == 0 else None
    try:
        places = _gathered((_machine(), path))
        if {machine for machine, _ in places} == {_machine()} and (common := places[0][1]):
            with suppress(OSError, ImportError):
                own = SharedSum(common, rank, ranks, size, timeout)
        is_shared = all(_gathered(own is not None))
    finally:
        if path is not None:
            path.unlink(missing_ok=True)
    return own if is_shared and own is not None else all_reduce


def _gathered(value: Any) -> list[Any]:
    """The values of all ranks."""
    values = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def _machine() -> tuple[str, int]:
    return socket.gethostname(), uuid.getnode()


def _new_file(length: int) -> Path | None:
    """A file of `length` zeros, in shared memory if there is some; None if it cannot be made."""
    folder = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with suppress(OSError):
        descriptor, name = tempfile.mkstemp(prefix="lenet-", dir=folder)
        with os.fdopen(descriptor, "wb") as file:
            file.write(bytes(length))  # now, since in a full folder a later write is a bus error
        return Path(name)
    return None
