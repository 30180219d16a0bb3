"""Compiled training on any number of threads: the same bits, and nobody waits for ever."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch
from helpers import TUNED, threads_of_torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.kernels import threads
from models.kernels.chunks import chunks_of
from models.kernels.compiled import entry
from models.kernels.lanes import LANES
from models.kernels.lenet5.cpu import MiniBatches
from models.kernels.tickets import (
    close,
    is_last,
    new_tickets,
    open_phase,
    take,
    wait_for_another,
)
from models.kernels.update import Update
from models.learners.compiled import gradient_of
from models.lenet import LeNet5
from models.lenet1998 import LeNet1998

MODELS = {
    "original": LeNet5,
    "modern": partial(LeNet5, c3="modern"),
    "tuned": partial(LeNet5, **TUNED),
    "1998": LeNet1998,
}


def trained(name, sizes):
    """All that some steps from the same start leave behind."""
    torch.manual_seed(0)
    model = MODELS[name]()
    images, labels = torch.randint(256, (50, 28, 28), dtype=torch.uint8), torch.randint(10, (50,))
    order = torch.randint(50, (sum(sizes),))
    numbers = None
    if any(model.distortion):
        numbers = torch.rand(len(order), model.distortion.numbers) * 2 - 1
    settings = {"distortion": model.distortion}
    if name == "tuned":
        velocities = [torch.zeros_like(p) for p in model.net.parameters()]
        settings |= {"update": Update(0.9, True, 1e-4), "velocities": velocities}
    compute = gradient_of(model, **settings)
    shares, rates = 1 / torch.tensor(sizes).clamp(min=1), torch.full((len(sizes),), 1e-2)
    batches = MiniBatches(images, labels, order, numbers)
    losses = compute.descend(batches, np.array(sizes), shares, rates)
    last = compute(model.inputs(images), labels, 0.1)
    return [losses, last, *model.net.parameters(), *(p.grad for p in model.net.parameters())]


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("sizes", [[1, 1], [7, 7], [100, 100], [101, 101], [100, 7, 0, 1, 101]])
@pytest.mark.parametrize("name", MODELS)
def test_any_number_of_threads_gives_the_same_bits(name, sizes):
    found = []
    for count in (1, 2, 3, 4):
        with threads_of_torch(count):
            found.append(trained(name, sizes))
    assert all(equal(found[0], other) for other in found[1:])


SIZES = [0, 1, 15, 16, 17, 33, 64, 65, 100, 128, 129, 1100]


@given(
    sizes=st.lists(st.sampled_from(SIZES), min_size=1, max_size=5),
    count=st.sampled_from([2, 3, 8, 20]),
    late=st.booleans(),
)
@settings(max_examples=25)
def test_threads_that_are_late_or_never_come_change_no_bit(sizes, count, late):
    """Whoever is there does both halves of the last group, of mini-batches of any sizes."""
    with threads_of_torch(1):
        alone = trained("original", sizes)
    with threads_of_torch(count), pytest.MonkeyPatch.context() as patch:
        if late:
            patch.setattr(threads._helpers, "call", lambda errand, count: None)
        assert equal(alone, trained("original", sizes))


def test_a_smaller_mini_batch_may_be_more_chunks_and_has_memory_for_them():
    """Of nine groups two are a chunk, of eight each: the sums went behind the end of memory."""
    compute = gradient_of(LeNet5())
    images, labels = torch.zeros(1, 28, 28, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64)
    sizes = np.array([9 * LANES, 8 * LANES])
    batches = MiniBatches(images, labels, torch.zeros(sizes.sum(), dtype=torch.int64))
    compute.descend(batches, sizes, torch.ones(2), torch.zeros(2))
    assert len(compute._memory.sums.bias) >= chunks_of(8) == 8


def test_trainings_in_two_threads_at_once_do_not_disturb_each_other():
    names = ["original", "1998"] * 4
    alone = [trained_alone(name) for name in names]
    with threads_of_torch(2), ThreadPoolExecutor(2) as pool:
        at_once = [*pool.map(trained_alone, names)]
    assert all(map(equal, alone, at_once))


def trained_alone(name):
    """With random numbers of its own: torch's are all threads'."""
    model = LeNet5() if name == "original" else LeNet1998()
    numbers = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=numbers) / 20)
    images = torch.randint(256, (50, 28, 28), dtype=torch.uint8, generator=numbers)
    labels, order = torch.arange(50) % 10, torch.arange(2000) % 50
    sizes, rates = np.full(20, 100), torch.full((20,), 1e-3)
    losses = gradient_of(model).descend(MiniBatches(images, labels, order), sizes, rates, rates)
    return [losses, *model.net.parameters()]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own():
    tasks, sums = 8, np.zeros((2, 8), np.int64)

    def train():
        tickets = new_tickets()
        threads.together(lambda n: add_up_in_turns(n, tickets, 99, tasks, sums), 3)

    train()
    expected, sums[:] = sums.copy(), 0
    child = os.fork()
    if not child:
        signal.alarm(60)
        train()
        os._exit(0 if threads._helpers._count == 2 and (sums == expected).all() else 1)
    assert os.waitpid(child, 0)[1] == 0


@entry()
def add_up_in_turns(worker, tickets, phases, tasks, sums):
    """Each phase adds to all sums what the one before left in the next one."""
    if worker == 0:
        open_phase(tickets, 0)
    while True:
        phase, task = take(tickets)
        if phase >= phases:
            return
        if task >= tasks:
            wait_for_another(tickets, phase)
            continue
        sums[(phase + 1) % 2, task] = sums[phase % 2, (task + 1) % tasks] + phase
        if is_last(tickets, tasks):
            open_phase(tickets, phase + 1)


@pytest.mark.parametrize("workers", [1, 2, 7])
@pytest.mark.parametrize("tasks", [1, 3, 8])
def test_no_phase_begins_before_the_last_one_is_over(workers, tasks):
    phases, tickets = 2000, new_tickets()
    sums = np.zeros((2, tasks), np.int64)
    sums[0] = np.arange(tasks)
    threads.together(lambda n: add_up_in_turns(n, tickets, phases, tasks, sums), workers)
    expected = sum(range(phases)) + (np.arange(tasks) + phases) % tasks
    assert (sums[phases % 2] == expected).all()


def test_who_fails_leaves_nobody_waiting():
    tickets = new_tickets()

    def fail(worker):
        if worker == 0:
            raise KeyboardInterrupt
        add_up_in_turns(worker, tickets, 1, 1, np.zeros((2, 1), np.int64))

    with pytest.raises(KeyboardInterrupt):
        threads.together(fail, 3)
    close(tickets)
    # The same threads are there for the next one, and go on after errors of their own.
    seen = []
    threads.together(lambda worker: seen.append(worker) or 1 / (1 - (worker > 0)), 3)
    test_no_phase_begins_before_the_last_one_is_over(3, 3)
    assert 0 in seen


def test_whoever_comes_after_the_end_goes_home():
    tickets = new_tickets()
    close(tickets)
    add_up_in_turns(1, tickets, 5, 1, np.zeros((2, 1), np.int64))
    assert threads.threads_for(0) == 1
