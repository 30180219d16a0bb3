"""A work queue in compiled code: threads draw the tasks of one phase after another by tickets.

A phase is over when its tasks are done, whichever threads did them. No thread waits for one that
has no task, be it preempted, late, or gone. The thread that finishes the last task of a phase opens
the next phase.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic

from models.kernels.compiled import compiled, entry

NEXT = 0
"""Index of the next ticket: its phase and, in the lower half, its task."""

DONE = 8
"""Index of the count of finished tasks of the phase, in another cache line."""

HALFWAY = 16
"""Index of the last phase whose split task is half done, in a cache line of its own too."""

HALF = 32
"""Bits of the task in a ticket."""

UNOPENED = -1 << HALF - 1
"""The ticket before the first phase: a task number beyond any"""

CLOSED = 1 << 62
"""The ticket after the last phase"""

SPINS = 1000
"""How often a thread polls, for some microseconds, before it yields the processor."""

if os.name == "nt":
    _yield = types.ExternalFunction("SwitchToThread", types.int32())
else:
    _yield = types.ExternalFunction("sched_yield", types.int32())


def new_tickets() -> np.ndarray[Any, Any]:
    """The tickets of one call, whose first phase is not open yet."""
    tickets = np.zeros(HALFWAY + DONE, np.int64)
    tickets[NEXT], tickets[HALFWAY] = UNOPENED, -1
    return tickets


def close(tickets: np.ndarray[Any, Any]) -> None:
    """Releases threads that come later, or wait for a first phase that is never opened."""
    tickets[NEXT] = CLOSED


@compiled()
def take(tickets):
    """Draws a ticket: the open phase, and a task that no other thread gets, if it has one left."""
    ticket = _add(tickets, NEXT, 1)
    return ticket >> HALF, ticket & ((1 << HALF) - 1)


@compiled()
def is_last(tickets, tasks):
    """Counts a task as done; returns whether it was the last of `tasks`."""
    return _add(tickets, DONE, 1) == tasks - 1


@compiled()
def open_tasks(tickets, tasks):
    """Opens the tasks of a single phase; without any tasks it is over."""
    open_phase(tickets, 0 if tasks else 1)


@compiled()
def next_task(tickets, tasks):
    """Draws a task of a single phase; returns -1 when all of them are done."""
    while True:
        phase, task = take(tickets)
        if phase > 0:
            return -1
        if task < tasks:
            return task
        wait_for_another(tickets, phase)


@compiled()
def finish(tickets, tasks):
    """Counts a task of a single phase as done."""
    if is_last(tickets, tasks):
        open_phase(tickets, 1)


@compiled()
def open_phase(tickets, phase):
    """Opens the tasks of a phase; called by the thread that ended the phase before."""
    _store(tickets, DONE, 0)
    _store(tickets, NEXT, phase << HALF)


@compiled()
def wait_for_another(tickets, phase):
    """Waits until the phase is over."""
    _wait_for(tickets, NEXT, (phase + 1) << HALF)


@compiled()
def say_halfway(tickets, phase):
    """Marks the first half of the phase's split task as done."""
    _store(tickets, HALFWAY, phase)


@compiled()
def wait_for_half(tickets, phase):
    """Waits for `say_halfway` in the phase, which a thread with an earlier ticket calls."""
    _wait_for(tickets, HALFWAY, phase)


@compiled()
def _wait_for(tickets, place, number):
    """Waits until the value at a place, which only grows, is at least `number`."""
    looks = 0
    while _load(tickets, place) < number:
        looks += 1
        if looks > SPINS:
            _yield()


@entry()
def show(counts, place, count):
    """Sets a count that others wait for, after all earlier writes."""
    _store(counts, place, count)


@entry()
def is_reached(counts, place, count, looks):
    """Whether another process has shown at least that count; polls at most `looks` times."""
    while looks and _load(counts, place) < count:
        looks -= 1
    return _load(counts, place) >= count


@intrinsic
def _add(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """Adds to array[index] atomically; returns the value before."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = _address(context, builder, signature, args)
        return builder.atomic_rmw("add", place, args[2], "seq_cst")

    return types.int64(array, types.intp, types.int64), generate


@intrinsic
def _load(typing: Any, array: Any, index: Any) -> Any:
    """Loads array[index] atomically, before all later accesses."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load_atomic(_address(context, builder, signature, args), "seq_cst", 8)

    return types.int64(array, types.intp), generate


@intrinsic
def _store(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """Stores array[index] = value atomically, after all earlier accesses."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = _address(context, builder, signature, args)
        builder.store_atomic(args[2], place, "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.int64), generate


def _address(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    data = context.make_array(signature.args[0])(context, builder, args[0]).data
    return builder.gep(data, [args[1]])
