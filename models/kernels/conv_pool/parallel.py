"""Forward and backward pass of a batch through one block or two, by any number of threads.

All threads call the same function with the same data and share the groups, or chunks of groups, of
the batch. Worker 0 returns when all are done. Gradients are added up by chunks, the same for any
number of threads. Shapes as in `memory.py` and `pair.py`.
"""

from __future__ import annotations

from models.kernels.chunks import begin_of
from models.kernels.compiled import entry
from models.kernels.conv_pool.backward import (
    add_lanes,
    add_up,
    backward_group,
    gather_input_gradient,
    sum_of_taps,
)
from models.kernels.conv_pool.forward import forward_group, spread_input, spread_taps
from models.kernels.conv_pool.frame import (
    frame_images,
    frame_lanes,
    into_lanes,
    out_of_lanes,
    unframe_lanes,
)
from models.kernels.conv_pool.memory import part, scratch_of
from models.kernels.conv_pool.pair import (
    backward_both,
    forward_both,
    keep_sums,
    kept_parts,
    pair_of,
    sums_of,
    total_of_chunks,
)
from models.kernels.lanes import LANES
from models.kernels.tickets import finish, next_task, open_tasks


@entry()
def forward(worker, tickets, x, groups, layer, weight, per_map, scratches, slope, y):
    """Input x (G, C, H, W, L) -> slope (G, M, 2R, 2S, L) and y (G, M, R, S, L)."""
    shape, scratch = layer.shape, scratch_of(scratches, worker)
    if worker == 0:
        spread_taps(weight, layer.taps)
        open_tasks(tickets, groups)
    while True:
        g = next_task(tickets, groups)
        if g < 0:
            break
        frame_lanes(part(x, g, groups), shape, scratch.framed)
        spread_input(scratch.framed, shape, scratch.pixels)
        outs = part(slope, g, groups), part(y, g, groups)
        forward_group(layer, per_map, scratch, *outs, shape.pooled_rows, shape.pooled)
        finish(tickets, groups)


@entry()
def backward(
    worker, tickets, grad, x, groups, layer, weight, scratches, slope, framed, own, sums, outs
):
    """Writes the gradients `outs`: at x, unless empty, and at the parameters, (P, 25) and (M,).

    `framed` (T, C, rows, columns, L) is memory for the first. `own` and `sums` are as the first two
    fields of `pair.Sums`, for threads and for chunks.
    """
    shape, scratch = layer.shape, scratch_of(scratches, worker)
    dx, dw, db = outs
    own_taps, own_biases = own[0][worker], own[1][worker]
    taps, biases = sums
    chunks = len(taps)
    if worker == 0:
        spread_taps(weight, layer.taps)
        open_tasks(tickets, chunks)
    while True:
        chunk = next_task(tickets, chunks)
        if chunk < 0:
            break
        own_taps[:] = 0
        own_biases[:] = 0
        for g in range(begin_of(chunk, chunks, groups), begin_of(chunk + 1, chunks, groups)):
            frame_lanes(part(x, g, groups), shape, scratch.framed)
            spread_input(scratch.framed, shape, scratch.pixels)
            backward_group(
                part(grad, g, groups),
                shape.pooled_rows,
                shape.pooled,
                layer,
                scratch,
                part(slope, g, groups),
                len(dx) > 0,
                own_taps,
                own_biases,
            )
            if len(dx):
                gather_input_gradient(scratch.pixel_gradients, shape, framed[worker])
                unframe_lanes(framed[worker], shape, part(dx, g, groups))
        add_lanes(own_taps, taps[chunk])
        add_lanes(own_biases, biases[chunk])
        finish(tickets, chunks)
    if worker == 0:
        sum_of_taps(taps, layer.taps, dw)
        add_up(biases, 0, db)


@entry()
def forward_two(worker, tickets, x, batch, pairs, filters, per_map, per_map2, keep, state, outs, y):
    """Images x (B, C, H, W) -> y (B, M2, R2, S2), and each group's state (G, ...), if it is kept.

    If not, state is (T, ...). `outs` (T, M2, R2, S2, L) is memory.
    """
    groups, pair, out = -(-batch // LANES), pair_of(pairs, worker), outs[worker]
    if worker == 0:
        spread_taps(filters.weight, pair.first.taps)
        spread_taps(filters.weight2, pair.second.taps)
        open_tasks(tickets, groups)
    while True:
        g = next_task(tickets, groups)
        if g < 0:
            break
        image, features = g * LANES, pair.second.shape.features
        frame_images(x, image, batch, pair.first.shape, pair.scratch.framed)
        own = part(state, g, groups) if keep else part(state, worker, len(outs))
        forward_both(pair, per_map, per_map2, own, out)
        out_of_lanes(out, batch - image, features, y, image * features, features)
        finish(tickets, groups)


@entry()
def backward_two(
    worker, tickets, grad, x, batch, pairs, filters, state, outs, vectors, sums, gradients
):
    """Gradients at the parameters of both blocks, from grad (B, M2, R2, S2) at the second's y.

    `outs` (T, M2, R2, S2, L) is memory, and so are the threads' vectors and the chunks' sums.
    """
    groups, chunks, pair = -(-batch // LANES), len(sums.taps), pair_of(pairs, worker)
    shape, shape2, out = pair.first.shape, pair.second.shape, outs[worker]
    if worker == 0:
        spread_taps(filters.weight, pair.first.taps)
        spread_taps(filters.weight2, pair.second.taps)
        open_tasks(tickets, chunks)
    while True:
        task = next_task(tickets, chunks)
        if task < 0:
            break
        # Backwards: the last groups of the forward pass are still in the cache.
        chunk = chunks - 1 - task
        own = sums_of(vectors, worker)
        for g in range(begin_of(chunk, chunks, groups), begin_of(chunk + 1, chunks, groups)):
            image, features = g * LANES, shape2.features
            kept_state = part(state, g, groups)
            _, middle, _ = kept_parts(kept_state, shape, shape2)
            frame_images(x, image, batch, shape, pair.scratch.framed)
            spread_input(pair.scratch.framed, shape, pair.scratch.pixels)
            spread_input(middle, shape2, pair.scratch2.pixels)
            into_lanes(grad, image * features, features, batch - image, features, out, 0)
            backward_both(out, pair, kept_state, own)
        keep_sums(own, sums, chunk)
        finish(tickets, chunks)
    if worker == 0:
        total_of_chunks(sums, pair.first.taps, pair.second.taps, gradients)
