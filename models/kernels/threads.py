"""The thread pool of the compiled kernels, with as many threads as torch is set to use."""

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
    """A function for the threads of the pool; the caller sets it to None when it is done."""

    def __init__(self, function: Callable[[int], object]) -> None:
        self.function: Callable[[int], object] | None = function


class _Helpers:
    """A pool of daemon threads with a work queue."""

    def __init__(self) -> None:
        self._errands: SimpleQueue[tuple[_Errand, int]] = SimpleQueue()
        self._count = 0

    def call(self, errand: _Errand, count: int) -> None:
        """Queues calls of the errand's function with 1 to `count`; they may run late, or never."""
        while self._count < count:
            self._count += 1
            Thread(target=self._work, name=f"kernels-{self._count}", daemon=True).start()
        for worker in range(1, count + 1):
            self._errands.put((errand, worker))

    def _work(self) -> None:
        while True:
            errand, worker = self._errands.get()
            function = errand.function
            # An error here occurs in the caller too, which reports it.
            with suppress(Exception):
                if function is not None:
                    function(worker)
            del errand, function


_helpers = _Helpers()


def _without_threads() -> None:
    """Resets the pool in a forked child, which has no thread but the one that forked."""
    global _helpers
    _helpers = _Helpers()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_without_threads)


def together(function: Callable[[int], object], threads: int) -> None:
    """Calls function(0), and lets other threads call function(1), ... meanwhile.

    Returns when function(0) does. The function itself must ensure that the work of other threads is
    done by then; they may not have begun, so that function(0) does all of it.
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
