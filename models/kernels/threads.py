"""How many threads the compiled kernels use: as many as torch, which users and Lightning set."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread

import torch

from models.kernels.tickets import close, new_tickets


def threads_for(tasks: int) -> int:
    """Torch's number of threads, but no more than there are tasks."""
    return max(1, min(torch.get_num_threads(), tasks))


class _Errand:
    """What the threads are to do for a caller, until that one has done it."""

    def __init__(self, function: Callable[[int], object]) -> None:
        self.function: Callable[[int], object] | None = function


class _Helpers:
    """Threads that wait for an errand; they end with the program."""

    def __init__(self) -> None:
        self._errands: SimpleQueue[tuple[_Errand, int]] = SimpleQueue()
        self._count = 0

    def call(self, errand: _Errand, count: int) -> None:
        """Lets so many threads call the errand's function with 1, 2, ...: now, later, or never."""
        while self._count < count:
            self._count += 1
            Thread(target=self._work, name=f"kernels-{self._count}", daemon=True).start()
        for worker in range(1, count + 1):
            self._errands.put((errand, worker))

    def _work(self) -> None:
        while True:
            errand, worker = self._errands.get()
            function = errand.function
            # What fails here fails in the caller too, where it is seen.
            with suppress(Exception):
                if function is not None:
                    function(worker)
            del errand, function


_helpers = _Helpers()


def _without_threads() -> None:
    """In a child that was forked: no thread came along but the one that forked."""
    global _helpers
    _helpers = _Helpers()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_without_threads)


def together(function: Callable[[int], object], threads: int) -> None:
    """Calls function(0), and lets other threads call function(1), ... meanwhile.

    Returns when function(0) does. Whether another thread has begun by then, or is done, the
    function has to see to: it may do all of the work by itself.
    """
    errand = _Errand(function)
    try:
        if threads > 1:
            _helpers.call(errand, threads - 1)
        function(0)
    finally:
        errand.function = None


def share_out(work: Callable[..., object], threads: int, *data: object) -> None:
    """Calls compiled `work(worker, tickets, *data)` on each thread; they share its tasks."""
    tickets = new_tickets()
    try:
        together(lambda worker: work(worker, tickets, *data), threads)
    finally:
        close(tickets)
