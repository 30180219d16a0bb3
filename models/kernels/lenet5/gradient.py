"""LeNet-5's gradient for a mini-batch, and the steps of gradient descent, by any number of threads.

All threads call `descent` with the same data, and share the tasks of three phases for each
mini-batch. Every task writes memory of its own, and the order of each sum depends on the mini-batch
alone: so the bits are the same for any number of threads, whichever of them took which task.
Nothing is allocated within a phase, so that no thread fails there while others wait for it.

Shapes as in `memory.py`.
"""

from __future__ import annotations

from models.kernels.chunks import begin_of, chunks_of, stretch
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
from models.kernels.tickets import (
    is_last,
    open_phase,
    say_halfway,
    take,
    wait_for_another,
    wait_for_half,
)

GROUPS, SUMS, STEP = range(3)
"""Phases of a mini-batch: forward and backward pass of groups, sums for gradients, and the step."""

THERE, BACK, BOTH = 1, 2, 3
"""Forward pass, backward pass, or both. Of seven groups two threads would take four and three: so
with several threads the first task is the last group's forward pass, the last one its backward."""

PHASES = 3

COLUMNS = 5 * LANES
"""Columns of C5's weight whose gradient is one task"""

OTHERS = 3
"""Tasks of sums beside those of C5's weight"""

STRETCHES = 8
"""Tasks of a step: each takes one of so many parts of every parameter"""


@entry()
def descent(worker, tickets, batches, steps, update, net, memory, each, losses):
    """Takes a step for each of K mini-batches; writes losses (K,), weighted by their shares.

    Without rates there is no step: the gradients are those of the last mini-batch. The losses of
    its images are left in `each`, as long as the largest mini-batch. Worker 0 opens the work.
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
    """The number of tasks of a phase, for a mini-batch of that many images."""
    if kind == GROUPS:
        return chunks_of(-(-batch // LANES)) + _is_halved(batch, memory)
    if kind == SUMS:
        return OTHERS + -(-features // COLUMNS)
    return STRETCHES


@compiled()
def _is_halved(batch, memory):
    """Whether the last group is two tasks: if chunks are single groups, and threads are several."""
    groups, threads = -(-batch // LANES), len(memory.groups.s4) - 1
    return threads > 1 and 1 < groups == chunks_of(groups)


@compiled()
def _chunk_of(task, tasks, chunks):
    """The chunk of groups of a task, and which passes it computes."""
    if tasks == chunks:
        return task, BOTH
    if task == 0:
        return chunks - 1, THERE
    return (task - 1, BOTH) if task < chunks else (chunks - 1, BACK)


@compiled()
def _place(net, memory, t):
    """Both blocks with the memory of thread t, and the other memory of its group."""
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
    """Mini-batch k of the batches."""
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
    """The passes of a chunk's groups; a group completes its passes before the next one begins."""
    groups = -(-len(batch.order) // LANES)
    for g in range(begin_of(chunk, chunks, groups), begin_of(chunk + 1, chunks, groups)):
        if way & THERE:
            there(batch, g * LANES, blocks, folded, group)
        if way & BACK:
            back(batch, g * LANES, blocks, folded, head, group, rows, sums, losses)


@compiled()
def _sums(task, batch, rows, sums, features, out, memory):
    """A task's part of the gradients: sums over chunks, and over the batch for dense layers."""
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
    """Adds up a block's biases, coefficients and offsets, as far as they are learnt."""
    add_up(sums, 0, bias)
    add_up(sums, len(bias), coefficient)
    add_up(sums, len(bias) + len(coefficient), offset)


@entry()
def step_of_ranks(net, update, rate):
    """Takes the step of all parameters, by `take_step`."""
    take_step(net, update, rate, 0, 1)


@compiled()
def take_step(net, update, rate, n, count):
    """Updates part n of `count` of every parameter as `torch.optim.SGD` does."""
    for place in range(len(net.parameters)):
        # Slices, so that the compiler knows that no index is negative, and vectorizes the loops.
        weight = stretch(array_at(net.parameters, place), n, count)
        slope = stretch(array_at(net.gradients, place), n, count)
        velocity = stretch(array_at(net.velocities, place), n, count)
        for i in range(len(weight)):
            d = slope[i] + update.weight_decay * weight[i]
            if update.momentum:
                velocity[i] = update.momentum * velocity[i] + d
                d = d + update.momentum * velocity[i] if update.nesterov else velocity[i]
            weight[i] -= rate * d
