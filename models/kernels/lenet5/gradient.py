"""LeNet-5's gradient for a mini-batch, and the steps of gradient descent, by any number of threads.

Each thread calls `descent` with the same arguments, and they share the tasks of three phases for
each mini-batch. Every task writes what no other one does, and which there are depends on the
mini-batch alone: so the bits are the same however many threads there are, and whoever did what.
Nothing is allocated within a phase, so that no thread fails there and lets others wait.

Shapes as in `memory.py`.
"""

from __future__ import annotations

from models.kernels.compiled import compiled, entry
from models.kernels.conv_pool.backward import add_up, sum_of_taps
from models.kernels.conv_pool.forward import spread_taps
from models.kernels.conv_pool.memory import Layer, scratch_of
from models.kernels.conv_pool.pair import Pair, keep_sums, some_sums, sums_of
from models.kernels.lanes import LANES
from models.kernels.lenet5.dense import dense_bias_gradient, dense_weight_gradient
from models.kernels.lenet5.folding import scale
from models.kernels.lenet5.group import back, there
from models.kernels.lenet5.memory import Batch, group_of, rows_of
from models.kernels.lenet5.places import array_at, parameters_at
from models.kernels.stretches import begin_of, chunks_of, stretch
from models.kernels.tickets import (
    is_last,
    open_phase,
    say_halfway,
    take,
    wait_for_another,
    wait_for_half,
)

GROUPS, SUMS, STEP = range(3)
"""The phases of a mini-batch: groups there and back, gradients of all of it, and the step."""

THERE, BACK, BOTH = 1, 2, 3
"""The ways of groups. Seven are four for one of two threads, and three for the other: so the first
task of several threads is the last group's way there, and the last task its way back."""

PHASES = 3

COLUMNS = 5 * LANES
"""Of C5's weight, whose gradient is one task"""

OTHERS = 3
"""Tasks of sums beside those of C5's weight"""

STRETCHES = 8
"""Tasks of a step, each so many parts of all parameters"""


@entry()
def descent(worker, tickets, batches, steps, update, net, memory, each, losses):
    """A step for each of K mini-batches, and their losses (K,), weighted by their shares.

    Without rates there is no step: the gradients are those of the last mini-batch. The losses of
    its images are left in `each`, which is as long as the largest one. Worker 0 begins.
    """
    folded, gradients = parameters_at(net.folded), parameters_at(net.gradients)
    last = PHASES * (len(steps.ends) - 1)
    if worker == 0:
        scale(net.parameters, net.factors, net.folded, 0, 1)
        _spread(folded, memory)
        open_phase(tickets, 0)
    while True:
        phase, task = take(tickets)
        if phase >= last:
            return
        k, kind = phase // PHASES, phase % PHASES
        begin, end = steps.ends[k], steps.ends[k + 1]
        tasks = _tasks_of(kind, end - begin, net.c3.features, memory)
        if task >= tasks:
            wait_for_another(tickets, phase)
            continue
        rows = rows_of(memory.rows, end - begin, folded)
        chunks = chunks_of(-(-(end - begin) // LANES))
        sums = some_sums(memory.sums, chunks)
        if kind == GROUPS:
            batch = _batch_of(batches, steps, k)
            chunk, way = _chunk_of(task, tasks, chunks)
            own = sums_of(memory.vectors, worker)
            if way == BACK:
                wait_for_half(tickets, phase)
            blocks, group = _place(
                net, memory, worker if way == BOTH else len(memory.groups.s4) - 1
            )
            _groups(chunk, chunks, way, batch, blocks, folded, net.head, group, rows, own, each)
            if way == THERE:
                say_halfway(tickets, phase)
            else:
                keep_sums(own, sums, chunk)
        elif kind == SUMS:
            _sums(task, end - begin, rows, sums, net.c3.features, gradients, memory)
            if task == 0:
                losses[k] = each[: end - begin].sum() * steps.shares[k]
        else:
            scale(net.gradients, net.factors, net.gradients, task, tasks)
            if len(steps.rates):
                take_step(net, update, steps.rates[k], task, tasks)
                scale(net.parameters, net.factors, net.folded, task, tasks)
        if is_last(tickets, tasks):
            if kind == STEP:
                _spread(folded, memory)
            open_phase(tickets, phase + 1)


@compiled()
def _tasks_of(kind, batch, features, memory):
    """How many tasks a phase has for a mini-batch of that many images."""
    if kind == GROUPS:
        return chunks_of(-(-batch // LANES)) + _is_halved(batch, memory)
    if kind == SUMS:
        return OTHERS + -(-features // COLUMNS)
    return STRETCHES


@compiled()
def _is_halved(batch, memory):
    """Whether the last group is two tasks: where a chunk is one group, and threads are several."""
    groups, threads = -(-batch // LANES), len(memory.groups.s4) - 1
    return threads > 1 and 1 < groups == chunks_of(groups)


@compiled()
def _chunk_of(task, tasks, chunks):
    """The chunk of groups that a task is about, and which way they go."""
    if tasks == chunks:
        return task, BOTH
    if task == 0:
        return chunks - 1, THERE
    return (task - 1, BOTH) if task < chunks else (chunks - 1, BACK)


@compiled()
def _place(net, memory, t):
    """Both blocks with memory for a group of thread t, and what else a group needs."""
    first = Layer(net.c1, net.c1_table, memory.c1_taps)
    second = Layer(net.c3, net.c3_table, memory.c3_taps)
    blocks = Pair(first, second, scratch_of(memory.c1, t), scratch_of(memory.c3, t))
    return blocks, group_of(memory.groups, t)


@compiled()
def _spread(folded, memory):
    spread_taps(folded.c1, memory.c1_taps)
    spread_taps(folded.c3, memory.c3_taps)


@compiled()
def _batch_of(batches, steps, k):
    """Mini-batch k of them."""
    begin, end = steps.ends[k], steps.ends[k + 1]
    return Batch(
        batches.images,
        batches.unit,
        batches.offset,
        batches.limits,
        batches.labels,
        batches.targets,
        batches.numbers[begin:end],
        batches.order[begin:end],
        steps.shares[k],
    )


@compiled()
def _groups(chunk, chunks, way, batch, blocks, folded, head, group, rows, sums, losses):
    """Some groups there and back; a group goes all the way before the next one begins."""
    groups = -(-len(batch.order) // LANES)
    for g in range(begin_of(chunk, chunks, groups), begin_of(chunk + 1, chunks, groups)):
        if way & THERE:
            there(batch, g * LANES, blocks, folded, group)
        if way & BACK:
            back(batch, g * LANES, blocks, folded, head, group, rows, sums, losses)


@compiled()
def _sums(task, batch, rows, sums, features, out, memory):
    """Some of the gradients: sums over the chunks, and for the dense layers over the batch."""
    c5, f6, output = len(out.c5_bias), len(out.f6_bias), len(out.output_bias)
    if task == 0:
        sum_of_taps(sums.taps2, memory.c3_sums, out.c3)
        _add_up_all(sums.bias2, out.c3_bias, out.s4, out.s4_bias)
        dense_bias_gradient(rows.d_c5, out.c5_bias)
        dense_bias_gradient(rows.d_f6, out.f6_bias)
    elif task == 1:
        sum_of_taps(sums.taps, memory.c1_sums, out.c1)
        _add_up_all(sums.bias, out.c1_bias, out.s2, out.s2_bias)
        if output:
            dense_weight_gradient(rows.d_output, rows.f6, batch, output, 0, f6, out.output)
            dense_bias_gradient(rows.d_output, out.output_bias)
    elif task == 2:
        dense_weight_gradient(rows.d_f6, rows.c5, batch, f6, 0, c5, out.f6)
    else:
        begin = (task - OTHERS) * COLUMNS
        end = min(features, begin + COLUMNS)
        dense_weight_gradient(rows.d_c5, rows.s4, batch, c5, begin, end, out.c5)


@compiled()
def _add_up_all(sums, bias, coefficient, offset):
    """Of a block, as many as are learnt."""
    add_up(sums, 0, bias)
    add_up(sums, len(bias), coefficient)
    add_up(sums, len(bias) + len(coefficient), offset)


@entry()
def step_of_ranks(net, update, rate):
    """Moves all parameters."""
    take_step(net, update, rate, 0, 1)


@compiled()
def take_step(net, update, rate, n, count):
    """Moves part n of `count` of all parameters as `torch.optim.SGD` does."""
    for place in range(len(net.parameters)):
        # Slices, so that the compiler knows the index to be above 0 and uses vectors.
        weight = stretch(array_at(net.parameters, place), n, count)
        slope = stretch(array_at(net.gradients, place), n, count)
        velocity = stretch(array_at(net.velocities, place), n, count)
        for i in range(len(weight)):
            d = slope[i] + update.weight_decay * weight[i]
            if update.momentum:
                velocity[i] = update.momentum * velocity[i] + d
                d = d + update.momentum * velocity[i] if update.nesterov else velocity[i]
            weight[i] -= rate * d
