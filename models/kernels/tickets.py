"""How threads share the tasks of one phase after the other: by tickets, in compiled code.

A phase is over when its tasks are done, whoever did them. Nobody waits for a thread that holds
none, be it put aside by the scheduler, late, or gone. Whoever finishes the last task of a phase
opens the next one.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic

from models.kernels.compiled import compiled, entry

NEXT = 0
"""Where the next ticket is: its phase and, in the lower half, its task."""

DONE = 8
"""Where the finished tasks of the phase are counted, in another line of the cache."""

HALFWAY = 16
"""The last phase with a task that is halfway, in a line of its own too."""

HALF = 32
"""Bits of a task."""

UNOPENED = -1 << HALF - 1
"""Before the first phase: a task that none has"""

CLOSED = 1 << 62
"""Behind the last one"""

SPINS = 1000
"""How often a thread looks, for some microseconds, before it lets others run."""

if os.name == "nt":
    _yield = types.ExternalFunction("SwitchToThread", types.int32())
else:
    _yield = types.ExternalFunction("sched_yield", types.int32())


def new_tickets() -> np.ndarray[Any, Any]:
    """Those of one call, whose first phase is not open yet."""
    tickets = np.zeros(HALFWAY + DONE, np.int64)
    tickets[NEXT], tickets[HALFWAY] = UNOPENED, -1
    return tickets


def close(tickets: np.ndarray[Any, Any]) -> None:
    """Sends home whoever comes later, or waits for a first phase that will not be opened."""
    tickets[NEXT] = CLOSED


@compiled()
def take(tickets):
    """The phase that is open, and a task of it that nobody else gets; there may be no such task."""
    ticket = _add(tickets, NEXT, 1)
    return ticket >> HALF, ticket & ((1 << HALF) - 1)


@compiled()
def is_last(tickets, tasks):
    """Says that a task is done; returns whether it was the last of so many."""
    return _add(tickets, DONE, 1) == tasks - 1


@compiled()
def open_tasks(tickets, tasks):
    """Hands out the tasks of a first phase that is the only one; without any it is over."""
    open_phase(tickets, 0 if tasks else 1)


@compiled()
def next_task(tickets, tasks):
    """A task of the first phase that nobody else gets; -1 when all of them are done."""
    while True:
        phase, task = take(tickets)
        if phase > 0:
            return -1
        if task < tasks:
            return task
        wait_for_another(tickets, phase)


@compiled()
def finish(tickets, tasks):
    """Says that a task is done, of so many of a first phase that is the only one."""
    if is_last(tickets, tasks):
        open_phase(tickets, 1)


@compiled()
def open_phase(tickets, phase):
    """Hands out the tasks of the next phase: for whoever did the last one of the phase before."""
    _store(tickets, DONE, 0)
    _store(tickets, NEXT, phase << HALF)


@compiled()
def wait_for_another(tickets, phase):
    """Returns when that phase is over."""
    _wait_for(tickets, NEXT, (phase + 1) << HALF)


@compiled()
def say_halfway(tickets, phase):
    """Says that the first half of a phase's task is done, which is in two."""
    _store(tickets, HALFWAY, phase)


@compiled()
def wait_for_half(tickets, phase):
    """Returns when that has been said of the phase; whoever says so got an earlier ticket."""
    _wait_for(tickets, HALFWAY, phase)


@compiled()
def _wait_for(tickets, place, number):
    """Returns when there is that number, or one above it: what is there only grows."""
    looks = 0
    while _load(tickets, place) < number:
        looks += 1
        if looks > SPINS:
            _yield()


@entry()
def show(counts, place, count):
    """Sets a count that others wait for, after all that was written before."""
    _store(counts, place, count)


@entry()
def is_reached(counts, place, count, looks):
    """Whether another has shown that count, or one behind it; looks so often at most."""
    while looks and _load(counts, place) < count:
        looks -= 1
    return _load(counts, place) >= count


@intrinsic
def _add(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """Adds to array[index], with no other thread in between; returns what was there."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = _address(context, builder, signature, args)
        return builder.atomic_rmw("add", place, args[2], "seq_cst")

    return types.int64(array, types.intp, types.int64), generate


@intrinsic
def _load(typing: Any, array: Any, index: Any) -> Any:
    """array[index], read anew, and before all that comes behind."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load_atomic(_address(context, builder, signature, args), "seq_cst", 8)

    return types.int64(array, types.intp), generate


@intrinsic
def _store(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """array[index] = value, after all that comes before."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = _address(context, builder, signature, args)
        builder.store_atomic(args[2], place, "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.int64), generate


def _address(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    data = context.make_array(signature.args[0])(context, builder, args[0]).data
    return builder.gep(data, [args[1]])
