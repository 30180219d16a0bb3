"""LeNet-5's gradient for a mini-batch, groups over threads, and the steps of gradient descent.

Shapes as in `memory.py`. Records are handed to the threads one by one, since Numba's threads take
none that holds others. What is compiled with `inline` becomes a part of its only caller: LLVM
optimizes all that a function calls once more with it, so that a level more of them takes longer.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from models.kernels.compiled import compiled
from models.kernels.conv_pool.backward import add_up, sum_of_taps
from models.kernels.conv_pool.forward import spread_taps
from models.kernels.conv_pool.memory import Layer, scratch_of
from models.kernels.conv_pool.pair import Pair, new_sums, sums_of
from models.kernels.lanes import LANES
from models.kernels.lenet5.dense import dense_bias_gradient, dense_weight_gradient
from models.kernels.lenet5.folding import scale
from models.kernels.lenet5.group import back, there
from models.kernels.lenet5.memory import Batch, new_group, new_rows


@compiled(inline="always")
def gradient(batch, net, memory, losses):
    """Losses of a mini-batch (B,), and share times the gradients of their sum."""
    scale(net.parameters, net.factors, net.folded)
    parameters = net.folded
    rows = new_rows(len(batch.order), net.c3, parameters)
    c1, c3 = spread_taps(parameters.c1), spread_taps(parameters.c3)
    # As many at S2 and S4 as are learnt.
    slopes = net.gradients
    numbers = len(slopes.c1_bias) + len(slopes.s2) + len(slopes.s2_bias)
    numbers2 = len(slopes.c3_bias) + len(slopes.s4) + len(slopes.s4_bias)
    sums = new_sums(memory.threads, numbers, c1, numbers2, c3)
    _groups(
        batch,
        net.c1,
        net.c1_table,
        c1,
        net.c3,
        net.c3_table,
        c3,
        parameters,
        net.head,
        memory.c1,
        memory.c3,
        rows,
        sums,
        losses,
    )
    _sums(len(batch.order), rows, sums, net.gradients)
    scale(net.gradients, net.factors, net.gradients)


@compiled(parallel=True)
def _groups(
    batch,
    c1,
    c1_table,
    c1_taps,
    c3,
    c3_table,
    c3_taps,
    net,
    head,
    scratch1,
    scratch3,
    rows,
    sums,
    losses,
):
    """All groups there and back; a group goes all the way before the next one begins."""
    groups, threads = -(-len(batch.order) // LANES), len(sums.taps)
    for t in prange(threads):
        first, second = Layer(c1, c1_table, c1_taps), Layer(c3, c3_table, c3_taps)
        blocks = Pair(first, second, scratch_of(scratch1, t), scratch_of(scratch3, t))
        group = new_group(c1, c3, net)
        own = sums_of(sums, t)
        for g in range(t * groups // threads, (t + 1) * groups // threads):
            there(batch, g * LANES, blocks, net, group)
            back(batch, g * LANES, blocks, net, head, group, rows, own, losses)


@compiled(parallel=True)
def _sums(batch, rows, sums, gradients):
    """The gradients: sums over the threads, and for the dense layers over the batch."""
    threads = len(sums.taps)
    c5, f6 = len(gradients.c5_bias), len(gradients.f6_bias)
    output = len(gradients.output_bias)
    s4 = len(gradients.c5) // c5
    # Columns over threads: no two write the same, and the order of the sums is the batch's.
    for t in prange(threads):
        columns = -(-s4 // LANES)
        begin = t * columns // threads * LANES
        end = min(s4, (t + 1) * columns // threads * LANES)
        dense_weight_gradient(rows.d_c5, rows.s4, batch, c5, begin, end, gradients.c5)
        if t == 0:
            sum_of_taps(sums.taps, gradients.c1)
            sum_of_taps(sums.taps2, gradients.c3)
            start = 0
            for out in (gradients.c1_bias, gradients.s2, gradients.s2_bias):
                add_up(sums.bias, start, out)
                start += len(out)
            start = 0
            for out in (gradients.c3_bias, gradients.s4, gradients.s4_bias):
                add_up(sums.bias2, start, out)
                start += len(out)
        if t == threads - 1:
            dense_weight_gradient(rows.d_f6, rows.c5, batch, f6, 0, c5, gradients.f6)
            dense_bias_gradient(rows.d_c5, gradients.c5_bias)
            dense_bias_gradient(rows.d_f6, gradients.f6_bias)
            if output:
                d = rows.d_output
                dense_weight_gradient(d, rows.f6, batch, output, 0, f6, gradients.output)
                dense_bias_gradient(d, gradients.output_bias)


@compiled()
def descent(batches, steps, update, net, memory, losses):
    """A step for each of K mini-batches, and their losses (K,), weighted by their shares.

    Without rates there is no step: the gradients are those of the last mini-batch.
    """
    end = 0
    for k in range(len(steps.sizes)):
        begin, end = end, end + steps.sizes[k]
        each = np.empty(steps.sizes[k], np.float32)
        batch = Batch(
            batches.images,
            batches.unit,
            batches.offset,
            batches.limits,
            batches.labels,
            batches.numbers[begin:end],
            batches.order[begin:end],
            steps.shares[k],
        )
        gradient(batch, net, memory, each)
        losses[k] = each.sum() * steps.shares[k]
        if len(steps.rates):
            take_step(net, update, steps.rates[k])


@compiled()
def take_step(net, update, rate):
    """Moves all parameters against their gradients, as `torch.optim.SGD` does."""
    for weight, slope, velocity in zip(net.parameters, net.gradients, net.velocities):  # noqa: B905
        for i in range(len(weight)):
            d = slope[i] + update.weight_decay * weight[i]
            if update.momentum:
                velocity[i] = update.momentum * velocity[i] + d
                d = d + update.momentum * velocity[i] if update.nesterov else velocity[i]
            weight[i] -= rate * d
