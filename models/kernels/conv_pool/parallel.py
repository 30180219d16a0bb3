"""All groups of a batch through one block or two, and back; each thread takes some of them.

Of two blocks the gradients are added up by chunks of groups, the same for any number of threads; of
one block by threads, so that the same number of them gives the same bits. Shapes as in `memory.py`
and `pair.py`. Records are handed over one by one: Numba's threads take none that holds others.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from models.kernels.compiled import compiled, entry
from models.kernels.conv_pool.backward import (
    add_up,
    backward_group,
    gather_input_gradient,
    sum_of_taps,
)
from models.kernels.conv_pool.forward import forward_group, new_taps, spread_input
from models.kernels.conv_pool.frame import (
    frame_images,
    frame_lanes,
    into_lanes,
    out_of_lanes,
    unframe_lanes,
)
from models.kernels.conv_pool.memory import Layer, averaging, new_scratches, part, scratch_of
from models.kernels.conv_pool.pair import (
    Pair,
    backward_both,
    forward_both,
    kept_parts,
    new_sums,
    sums_of,
    total_of_chunks,
)
from models.kernels.lanes import LANES
from models.kernels.stretches import begin_of, chunks_of


@entry(parallel=True)
def forward(x, groups, shape, table, weight, bias, threads, slope, y):
    """X (G, C, H, W, 8) -> slope (G, M, 2R, 2S, 8) and y (G, M, R, S, 8)."""
    spread = new_taps(weight)
    for t in prange(threads):
        layer, per_map = Layer(shape, table, spread), averaging(bias)
        scratch = scratch_of(new_scratches(shape, 1, False, False), 0)
        for g in range(t * groups // threads, (t + 1) * groups // threads):
            frame_lanes(part(x, g, groups), shape, scratch.framed)
            spread_input(scratch.framed, shape, scratch.pixels)
            outs = part(slope, g, groups), part(y, g, groups)
            forward_group(layer, per_map, scratch, *outs, shape.pooled_rows, shape.pooled)


@entry(parallel=True)
def backward(grad, x, groups, shape, table, weight, slope, threads, want_input, dx, dw, db):
    """Gradients at x, like x, and at the parameters: dw (P, 25) and db (M,).

    Every thread adds up its own groups in order, so that the same number of threads gives the same
    bits.
    """
    spread = new_taps(weight)
    taps = np.zeros((threads, len(spread) * LANES), np.float32)
    biases = np.zeros((threads, len(db) * LANES), np.float32)
    for t in prange(threads):
        layer = Layer(shape, table, spread)
        scratch = scratch_of(new_scratches(shape, 1, True, False), 0)
        framed = np.zeros(shape.framed if want_input else 0, np.float32)
        for g in range(t * groups // threads, (t + 1) * groups // threads):
            frame_lanes(part(x, g, groups), shape, scratch.framed)
            spread_input(scratch.framed, shape, scratch.pixels)
            backward_group(
                part(grad, g, groups),
                shape.pooled_rows,
                shape.pooled,
                layer,
                scratch,
                part(slope, g, groups),
                want_input,
                taps[t],
                biases[t],
            )
            if want_input:
                gather_input_gradient(scratch.pixel_gradients, shape, framed)
                unframe_lanes(framed, shape, part(dx, g, groups))
    sum_of_taps(taps, spread, dw)
    add_up(biases, 0, db)


@compiled()
def _new_pair(shape, table, taps, shape2, table2, taps2, backward):
    """Two blocks with memory for one thread."""
    return Pair(
        Layer(shape, table, taps),
        Layer(shape2, table2, taps2),
        scratch_of(new_scratches(shape, 1, backward, False), 0),
        scratch_of(new_scratches(shape2, 1, backward, False), 0),
    )


@entry(parallel=True)
def forward_two(x, batch, shape, table, shape2, table2, filters, threads, keep, state, y):
    """Images x (B, C, H, W) -> y (B, M2, R2, S2), and each group's state (G, ...), if it is kept.

    Else state is (T, ...).
    """
    groups = -(-batch // LANES)
    features = shape2.features
    taps, taps2 = new_taps(filters.weight), new_taps(filters.weight2)
    for t in prange(threads):
        pair = _new_pair(shape, table, taps, shape2, table2, taps2, False)
        per_map, per_map2 = averaging(filters.bias), averaging(filters.bias2)
        out = np.empty(features * LANES, np.float32)  # (M2, R2, S2, 8)
        for g in range(t * groups // threads, (t + 1) * groups // threads):
            image = g * LANES
            frame_images(x, image, batch, shape, pair.scratch.framed)
            own = part(state, g, groups) if keep else part(state, t, threads)
            forward_both(pair, per_map, per_map2, own, out)
            out_of_lanes(out, batch - image, features, y, image * features, features)


@entry()
def backward_two(grad, x, batch, shape, table, shape2, table2, filters, threads, state, gradients):
    """Gradients at the parameters of both blocks, from grad (B, M2, R2, S2) at the second's y."""
    taps, taps2 = new_taps(filters.weight), new_taps(filters.weight2)
    chunks = chunks_of(-(-batch // LANES))
    sums = new_sums(chunks, len(filters.bias), taps, len(filters.bias2), taps2)
    _groups_back(grad, x, batch, shape, table, taps, shape2, table2, taps2, threads, state, sums)
    total_of_chunks(sums, taps, taps2, gradients)


@compiled(parallel=True)
def _groups_back(grad, x, batch, shape, table, taps, shape2, table2, taps2, threads, state, sums):
    """All groups, their gradients added up by chunks."""
    groups, chunks = -(-batch // LANES), len(sums.taps)
    features = shape2.features
    for t in prange(threads):
        pair = _new_pair(shape, table, taps, shape2, table2, taps2, True)
        out = np.zeros(features * LANES, np.float32)  # (M2, R2, S2, 8)
        # Backwards: the last groups of the forward pass are still in the cache.
        for chunk in range((t + 1) * chunks // threads - 1, t * chunks // threads - 1, -1):
            own = sums_of(sums, chunk)
            end = begin_of(chunk + 1, chunks, groups)
            for g in range(end - 1, begin_of(chunk, chunks, groups) - 1, -1):
                image = g * LANES
                kept_state = part(state, g, groups)
                _, middle, _ = kept_parts(kept_state, shape, shape2)
                frame_images(x, image, batch, shape, pair.scratch.framed)
                spread_input(pair.scratch.framed, shape, pair.scratch.pixels)
                spread_input(middle, shape2, pair.scratch2.pixels)
                into_lanes(grad, image * features, features, batch - image, features, out, 0)
                backward_both(out, pair, kept_state, own)
