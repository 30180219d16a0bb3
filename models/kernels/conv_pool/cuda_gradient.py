"""Triton kernels of the fused block's backward pass; launched by `cuda.py`.

Sums are in float32, without tf32, and in a fixed order: no atomics, so the same bits every time.
Shapes as in `cuda.py`.
"""

from __future__ import annotations

import triton
import triton.language as tl

from models.kernels.conv_pool.cuda_kernels import COUNTS, among, in_map


# Arguments as in `backward`, several to a line.
# fmt: off
@triton.jit
def _input_gradient(
    block,  # which squares of the input map
    c,  # the input map
    grad_ptr, slope_ptr, weight_ptr, targets_ptr, by_source_ptr, source_starts_ptr, dx_ptr,
    batch, MAPS: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr, OUTPUTS: tl.constexpr, PADDING: tl.constexpr, BLOCK: tl.constexpr,
):
    """BLOCK squares of 2x2 pixels of dx, each from one 6x6 window of d = up(grad) * slope."""
    # Squares are placed so that their window begins with a pooled pixel: then it covers 3x3.
    odd: tl.constexpr = PADDING % 2
    down: tl.constexpr = (HEIGHT + odd + 1) // 2
    across: tl.constexpr = (WIDTH + odd + 1) // 2
    begin: tl.constexpr = PADDING // 2 - 2
    n = block * BLOCK + tl.arange(0, BLOCK)
    inside = n < batch * down * across
    image = n // (down * across)
    top = n // across % down
    left = n % across
    first_row = top + begin
    first_column = left + begin
    dx00 = tl.zeros([BLOCK], tl.float32)
    dx01 = dx00
    dx10 = dx00
    dx11 = dx00
    for i in range(tl.load(source_starts_ptr + c), tl.load(source_starts_ptr + c + 1)):
        p = tl.load(by_source_ptr + i)
        plane = image * OUTPUTS + tl.load(targets_ptr + p)
        w_ptr = weight_ptr + p * 25
        # All places of a window are a number apart that is known.
        grad_at = grad_ptr + (plane * ROWS + first_row) * COLUMNS + first_column
        slope_at = slope_ptr + 2 * ((plane * 2 * ROWS + 2 * first_row) * COLUMNS + first_column)
        for u in tl.static_range(3):
            for v in tl.static_range(3):
                valid = among(inside, first_row + u, u + begin, u + begin + down - 1, ROWS)
                valid = among(valid, first_column + v, v + begin, v + begin + across - 1, COLUMNS)
                g = tl.load(grad_at + (u * COLUMNS + v), valid, 0.0)
                for e in tl.static_range(2):
                    for f in tl.static_range(2):
                        of_slope = (2 * u + e) * 2 * COLUMNS + 2 * v + f
                        d = g * tl.load(slope_at + of_slope, valid, 0.0)
                        y = 4 - 2 * u - e
                        x = 4 - 2 * v - f
                        if y >= 0 and x >= 0:
                            dx00 += tl.load(w_ptr + y * 5 + x) * d
                        if y >= 0 and x < 4:
                            dx01 += tl.load(w_ptr + y * 5 + x + 1) * d
                        if y < 4 and x >= 0:
                            dx10 += tl.load(w_ptr + y * 5 + x + 5) * d
                        if y < 4 and x < 4:
                            dx11 += tl.load(w_ptr + y * 5 + x + 6) * d
    h = 2 * top - odd
    w = 2 * left - odd
    at = dx_ptr + ((image * MAPS + c) * HEIGHT + h) * WIDTH + w
    upper = inside & (h >= 0)
    lower = inside & (h + 1 < HEIGHT)
    tl.store(at, dx00, mask=upper & (w >= 0))
    tl.store(at + 1, dx01, mask=upper & (w + 1 < WIDTH))
    tl.store(at + WIDTH, dx10, mask=lower & (w >= 0))
    tl.store(at + WIDTH + 1, dx11, mask=lower & (w + 1 < WIDTH))
# fmt: on


# fmt: off
@triton.jit
def _six_pixels(
    corner, top, left, inside, N: tl.constexpr,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr, PADDING: tl.constexpr,
):
    """Row N of x's 6x6 window; pixels outside of x are 0."""
    valid = in_map(inside, top, N, HEIGHT, PADDING)
    at = corner + N * WIDTH
    p0 = tl.load(at, in_map(valid, left, 0, WIDTH, PADDING), 0.0)
    p1 = tl.load(at + 1, in_map(valid, left, 1, WIDTH, PADDING), 0.0)
    p2 = tl.load(at + 2, in_map(valid, left, 2, WIDTH, PADDING), 0.0)
    p3 = tl.load(at + 3, in_map(valid, left, 3, WIDTH, PADDING), 0.0)
    p4 = tl.load(at + 4, in_map(valid, left, 4, WIDTH, PADDING), 0.0)
    p5 = tl.load(at + 5, in_map(valid, left, 5, WIDTH, PADDING), 0.0)
    return p0, p1, p2, p3, p4, p5
# fmt: on


@triton.jit
def _five_sums(s0, s1, s2, s3, s4, d0, d1, p0, p1, p2, p3, p4, p5):
    """Adds products of two neighbours of d with a row of x to the sums of a row of weights."""
    s0 = s0 + d0 * p0 + d1 * p1
    s1 = s1 + d0 * p1 + d1 * p2
    s2 = s2 + d0 * p2 + d1 * p3
    s3 = s3 + d0 * p3 + d1 * p4
    s4 = s4 + d0 * p4 + d1 * p5
    return s0, s1, s2, s3, s4


@triton.jit
def _store_five(at, s0, s1, s2, s3, s4):
    tl.store(at, tl.sum(s0))
    tl.store(at + 1, tl.sum(s1))
    tl.store(at + 2, tl.sum(s2))
    tl.store(at + 3, tl.sum(s3))
    tl.store(at + 4, tl.sum(s4))


# fmt: off
@triton.jit
def _weight_gradient(
    p,  # the connection
    chunk,  # which pooled pixels
    grad_ptr, slope_ptr, x_ptr, sources_ptr, targets_ptr, parts_ptr,
    batch, chunks, per_chunk, MAPS: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, OUTPUTS: tl.constexpr, PADDING: tl.constexpr,
    BLOCK: tl.constexpr, TAPS: tl.constexpr,
):
    """A chunk's part of the gradients at a connection's weights and at its map's bias."""
    source = tl.load(sources_ptr + p)
    target = tl.load(targets_ptr + p)
    zeros = tl.zeros([BLOCK], tl.float32)
    bias = zeros
    # One letter for each row of weights.
    v0, v1, v2, v3, v4 = zeros, zeros, zeros, zeros, zeros
    w0, w1, w2, w3, w4 = zeros, zeros, zeros, zeros, zeros
    x0, x1, x2, x3, x4 = zeros, zeros, zeros, zeros, zeros
    y0, y1, y2, y3, y4 = zeros, zeros, zeros, zeros, zeros
    z0, z1, z2, z3, z4 = zeros, zeros, zeros, zeros, zeros
    first = chunk * per_chunk
    for start in range(first, min(first + per_chunk, batch * ROWS * COLUMNS), BLOCK):
        n = start + tl.arange(0, BLOCK)
        inside = n < batch * ROWS * COLUMNS
        image = n // (ROWS * COLUMNS)
        r = n // COLUMNS % ROWS
        s = n % COLUMNS
        plane = image * OUTPUTS + target
        g = tl.load(grad_ptr + (plane * ROWS + r) * COLUMNS + s, inside, 0.0)
        at = slope_ptr + 2 * ((plane * 2 * ROWS + 2 * r) * COLUMNS + s)
        d00 = g * tl.load(at, inside, 0.0)
        d01 = g * tl.load(at + 1, inside, 0.0)
        d10 = g * tl.load(at + 2 * COLUMNS, inside, 0.0)
        d11 = g * tl.load(at + 2 * COLUMNS + 1, inside, 0.0)
        bias += d00 + d01 + (d10 + d11)
        top = 2 * r - PADDING
        left = 2 * s - PADDING
        corner = x_ptr + ((image * MAPS + source) * HEIGHT + top) * WIDTH + left
        # Each pixel of the 6x6 window is read once for the four sums of d it belongs to.
        p0, p1, p2, p3, p4, p5 = _six_pixels(corner, top, left, inside, 0, HEIGHT, WIDTH, PADDING)
        v0, v1, v2, v3, v4 = _five_sums(v0, v1, v2, v3, v4, d00, d01, p0, p1, p2, p3, p4, p5)
        p0, p1, p2, p3, p4, p5 = _six_pixels(corner, top, left, inside, 1, HEIGHT, WIDTH, PADDING)
        w0, w1, w2, w3, w4 = _five_sums(w0, w1, w2, w3, w4, d00, d01, p0, p1, p2, p3, p4, p5)
        v0, v1, v2, v3, v4 = _five_sums(v0, v1, v2, v3, v4, d10, d11, p0, p1, p2, p3, p4, p5)
        p0, p1, p2, p3, p4, p5 = _six_pixels(corner, top, left, inside, 2, HEIGHT, WIDTH, PADDING)
        x0, x1, x2, x3, x4 = _five_sums(x0, x1, x2, x3, x4, d00, d01, p0, p1, p2, p3, p4, p5)
        w0, w1, w2, w3, w4 = _five_sums(w0, w1, w2, w3, w4, d10, d11, p0, p1, p2, p3, p4, p5)
        p0, p1, p2, p3, p4, p5 = _six_pixels(corner, top, left, inside, 3, HEIGHT, WIDTH, PADDING)
        y0, y1, y2, y3, y4 = _five_sums(y0, y1, y2, y3, y4, d00, d01, p0, p1, p2, p3, p4, p5)
        x0, x1, x2, x3, x4 = _five_sums(x0, x1, x2, x3, x4, d10, d11, p0, p1, p2, p3, p4, p5)
        p0, p1, p2, p3, p4, p5 = _six_pixels(corner, top, left, inside, 4, HEIGHT, WIDTH, PADDING)
        z0, z1, z2, z3, z4 = _five_sums(z0, z1, z2, z3, z4, d00, d01, p0, p1, p2, p3, p4, p5)
        y0, y1, y2, y3, y4 = _five_sums(y0, y1, y2, y3, y4, d10, d11, p0, p1, p2, p3, p4, p5)
        p0, p1, p2, p3, p4, p5 = _six_pixels(corner, top, left, inside, 5, HEIGHT, WIDTH, PADDING)
        z0, z1, z2, z3, z4 = _five_sums(z0, z1, z2, z3, z4, d10, d11, p0, p1, p2, p3, p4, p5)
    at = parts_ptr + (p * chunks + chunk) * TAPS
    _store_five(at + 0, v0, v1, v2, v3, v4)
    _store_five(at + 5, w0, w1, w2, w3, w4)
    _store_five(at + 10, x0, x1, x2, x3, x4)
    _store_five(at + 15, y0, y1, y2, y3, y4)
    _store_five(at + 20, z0, z1, z2, z3, z4)
    tl.store(at + 25, tl.sum(bias))
# fmt: on


@triton.jit(do_not_specialize=COUNTS)
def backward(
    grad_ptr,  # (B, M, R, S) gradient at y
    slope_ptr,  # (B, M, 2R, 2S)
    x_ptr,  # (B, C, H, W)
    weight_ptr,  # (P, 5, 5)
    sources_ptr,  # (P,) input map of each connection
    targets_ptr,  # (P,) output map of each connection
    by_source_ptr,  # (P,) connections in the order of their input maps
    source_starts_ptr,  # (C + 1,) first of them of each input map
    dx_ptr,  # (B, C, H, W)
    parts_ptr,  # (P, chunks, 32) sums of the weight gradient, and of d at 25
    input_programs,  # programs for dx, the first ones; 0 if it is not wanted
    input_blocks,  # of them for each input map
    batch,
    chunks,
    per_chunk,  # pooled pixels of a map in one chunk, a multiple of BLOCK
    MAPS: tl.constexpr,  # C
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,  # R
    COLUMNS: tl.constexpr,  # S
    OUTPUTS: tl.constexpr,  # M
    PADDING: tl.constexpr,
    BLOCK: tl.constexpr,
    TAPS: tl.constexpr,
):
    """A part of dx, or a chunk's part of the gradient at a connection's weights."""
    pid = tl.program_id(0)
    # fmt: off
    if pid < input_programs:
        _input_gradient(
            pid % input_blocks, pid // input_blocks, grad_ptr, slope_ptr, weight_ptr, targets_ptr,
            by_source_ptr, source_starts_ptr, dx_ptr, batch, MAPS, HEIGHT, WIDTH, ROWS, COLUMNS,
            OUTPUTS, PADDING, BLOCK,
        )
    else:
        rest = pid - input_programs
        _weight_gradient(
            rest // chunks, rest % chunks, grad_ptr, slope_ptr, x_ptr, sources_ptr, targets_ptr,
            parts_ptr, batch, chunks, per_chunk, MAPS, HEIGHT, WIDTH, ROWS, COLUMNS, OUTPUTS,
            PADDING, BLOCK, TAPS,
        )
    # fmt: on


# fmt: off
@triton.jit
def _add_up(
    p,  # the connection
    parts_ptr, starts_ptr, targets_ptr, dw_ptr, db_ptr, chunks,
    CHUNKS: tl.constexpr, TAPS: tl.constexpr,
):
    """The gradient at a connection's weights, and at the bias of its map: the sum of all parts."""
    tap = tl.arange(0, TAPS)
    chunk = tl.arange(0, CHUNKS)
    at = parts_ptr + (p * chunks + chunk[:, None]) * TAPS + tap[None, :]
    there = (chunk < chunks)[:, None] & (tap < 26)[None, :]
    total = tl.sum(tl.load(at, there, 0.0), axis=0)
    tl.store(dw_ptr + p * 25 + tap, total, mask=tap < 25)
    target = tl.load(targets_ptr + p)
    # All connections of a map sum the same d for the bias; the first one stores it.
    first = tl.load(starts_ptr + target + 0 * tap)
    tl.store(db_ptr + target + 0 * tap, total, mask=(tap == 25) & (first == p))
# fmt: on


@triton.jit(do_not_specialize=COUNTS)
def add_up(
    parts_ptr,  # (P, chunks, 32)
    starts_ptr,  # (M + 1,)
    targets_ptr,  # (P,)
    dw_ptr,  # (P, 25)
    db_ptr,  # (M,)
    chunks,
    connections,  # P
    parts2_ptr,  # of a second layer, the same
    starts2_ptr,
    targets2_ptr,
    dw2_ptr,
    db2_ptr,
    chunks2,
    CHUNKS: tl.constexpr,  # at least as many as either, a power of two
    TAPS: tl.constexpr,
):
    """Adds up the gradients of two layers, with a program for each connection of either."""
    p = tl.program_id(0)
    # fmt: off
    if p < connections:
        _add_up(
            p, parts_ptr, starts_ptr, targets_ptr, dw_ptr, db_ptr, chunks, CHUNKS, TAPS
        )
    else:
        _add_up(
            p - connections, parts2_ptr, starts2_ptr, targets2_ptr, dw2_ptr, db2_ptr, chunks2,
            CHUNKS, TAPS,
        )
    # fmt: on
