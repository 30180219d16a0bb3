"""What one program of the fused block computes on CUDA, in Triton; launched by `cuda.py`.

Sums are in float32, without tf32, and in a fixed order: no atomics, so the same bits every time.
Shapes as in `cuda.py`.
"""

from __future__ import annotations

import triton
import triton.language as tl

# Else each size of mini-batch would be compiled anew, in the middle of a training.
COUNTS = [
    *("pixels", "maps", "height", "width", "rows", "columns", "outputs", "padding", "batch"),
    *("input_programs", "input_blocks", "chunks", "per_chunk"),
]


@triton.jit
def _tanh(x):
    # e is at most 1, whatever x: nothing overflows. NaN stays NaN.
    e = tl.exp(-2.0 * tl.abs(x))
    size = (1.0 - e) / (1.0 + e)
    return tl.where(x < 0, -size, size)


@triton.jit
def _four_sums(
    x_ptr,
    weight_ptr,
    bias,
    sources_ptr,
    first,
    last,
    plane,
    top,
    left,
    inside,
    height,
    width,
    BLOCK: tl.constexpr,
):
    """The sums that are pooled together, by the connections from first to last - 1."""
    z00 = tl.zeros([BLOCK], tl.float32) + bias
    z01 = z00
    z10 = z00
    z11 = z00
    for p in range(first, last):
        base = (plane + tl.load(sources_ptr + p)) * height
        w_ptr = weight_ptr + p * 25
        # Each pixel of the 6x6 window is read once for the four sums it belongs to.
        for i in tl.static_range(6):
            for j in tl.static_range(6):
                h = top + i
                w = left + j
                valid = inside & (h >= 0) & (h < height) & (w >= 0) & (w < width)
                pixel = tl.load(x_ptr + (base + h) * width + w, mask=valid, other=0.0)
                if i < 5 and j < 5:
                    z00 += tl.load(w_ptr + i * 5 + j) * pixel
                if i < 5 and j > 0:
                    z01 += tl.load(w_ptr + i * 5 + j - 1) * pixel
                if i > 0 and j < 5:
                    z10 += tl.load(w_ptr + (i - 1) * 5 + j) * pixel
                if i > 0 and j > 0:
                    z11 += tl.load(w_ptr + (i - 1) * 5 + j - 1) * pixel
    return z00, z01, z10, z11


@triton.jit(do_not_specialize=COUNTS)
def forward(
    x_ptr,  # (B, C, H, W)
    weight_ptr,  # (P, 5, 5)
    bias_ptr,  # (M,)
    starts_ptr,  # (M + 1,) first connection of each output map
    sources_ptr,  # (P,) input map of each connection
    y_ptr,  # (B, M, R, S)
    slope_ptr,  # (B, M, 2R, 2S)
    pixels,  # B R S
    maps,  # C
    height,
    width,
    rows,  # R
    columns,  # S
    outputs,  # M
    padding,
    BLOCK: tl.constexpr,
):
    """BLOCK pooled pixels of one output map: y, and slope, its derivative by the four sums."""
    m = tl.program_id(1)
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = n < pixels
    image = n // (rows * columns)
    r = n // columns % rows
    s = n % columns
    top = 2 * r - padding
    left = 2 * s - padding
    z00, z01, z10, z11 = _four_sums(
        x_ptr,
        weight_ptr,
        tl.load(bias_ptr + m),
        sources_ptr,
        tl.load(starts_ptr + m),
        tl.load(starts_ptr + m + 1),
        image * maps,
        top,
        left,
        inside,
        height,
        width,
        BLOCK,
    )
    a00 = _tanh(z00)
    a01 = _tanh(z01)
    a10 = _tanh(z10)
    a11 = _tanh(z11)
    y = _tanh(0.25 * (a00 + a01 + (a10 + a11)))
    tl.store(y_ptr + ((image * outputs + m) * rows + r) * columns + s, y, mask=inside)
    scale = 0.25 * (1.0 - y * y)
    at = slope_ptr + ((image * outputs + m) * 2 * rows + 2 * r) * 2 * columns + 2 * s
    tl.store(at, scale * (1.0 - a00 * a00), mask=inside)
    tl.store(at + 1, scale * (1.0 - a01 * a01), mask=inside)
    tl.store(at + 2 * columns, scale * (1.0 - a10 * a10), mask=inside)
    tl.store(at + 2 * columns + 1, scale * (1.0 - a11 * a11), mask=inside)


@triton.jit
def _gradient_of_sums(grad_ptr, slope_ptr, plane, h, w, valid, rows, columns):
    """D at pixel (h, w) of a plane: the pooled gradient times the slope."""
    slope = tl.load(slope_ptr + (plane * 2 * rows + h) * 2 * columns + w, mask=valid, other=0.0)
    grad = tl.load(grad_ptr + (plane * rows + h // 2) * columns + w // 2, mask=valid, other=0.0)
    return grad * slope


@triton.jit
def _input_gradient(
    block,  # which pixels of the input map
    c,  # the input map
    grad_ptr,
    slope_ptr,
    weight_ptr,
    targets_ptr,
    by_source_ptr,
    source_starts_ptr,
    dx_ptr,
    batch,
    maps,
    height,
    width,
    rows,
    columns,
    outputs,
    padding,
    BLOCK: tl.constexpr,
):
    n = block * BLOCK + tl.arange(0, BLOCK)
    inside = n < batch * height * width
    image = n // (height * width)
    h = n // width % height
    w = n % width
    dx = tl.zeros([BLOCK], tl.float32)
    for i in range(tl.load(source_starts_ptr + c), tl.load(source_starts_ptr + c + 1)):
        p = tl.load(by_source_ptr + i)
        plane = image * outputs + tl.load(targets_ptr + p)
        for tap in range(25):
            u = h + padding - tap // 5
            v = w + padding - tap % 5
            valid = inside & (u >= 0) & (u < 2 * rows) & (v >= 0) & (v < 2 * columns)
            d = _gradient_of_sums(grad_ptr, slope_ptr, plane, u, v, valid, rows, columns)
            dx += tl.load(weight_ptr + p * 25 + tap) * d
    tl.store(dx_ptr + ((image * maps + c) * height + h) * width + w, dx, mask=inside)


@triton.jit
def _weight_gradient(
    p,  # the connection
    chunk,  # which convolved pixels
    grad_ptr,
    slope_ptr,
    x_ptr,
    sources_ptr,
    targets_ptr,
    parts_ptr,
    batch,
    maps,
    height,
    width,
    rows,
    columns,
    outputs,
    chunks,
    per_chunk,
    padding,
    BLOCK: tl.constexpr,
    TAPS: tl.constexpr,
):
    source = tl.load(sources_ptr + p)
    target = tl.load(targets_ptr + p)
    tap = tl.arange(0, TAPS)
    size = 4 * rows * columns
    total = tl.zeros([BLOCK, TAPS], tl.float32)
    first = chunk * per_chunk
    for start in range(first, min(first + per_chunk, batch * size), BLOCK):
        n = start + tl.arange(0, BLOCK)
        inside = n < batch * size
        image = n // size
        u = n // (2 * columns) % (2 * rows)
        v = n % (2 * columns)
        plane = image * outputs + target
        d = _gradient_of_sums(grad_ptr, slope_ptr, plane, u, v, inside, rows, columns)
        h = u[:, None] - padding + tap[None, :] // 5
        w = v[:, None] - padding + tap[None, :] % 5
        valid = inside[:, None] & (tap < 25)[None, :]
        valid = valid & (h >= 0) & (h < height) & (w >= 0) & (w < width)
        base = ((image * maps + source) * height)[:, None]
        pixel = tl.load(x_ptr + (base + h) * width + w, mask=valid, other=0.0)
        # Tap 25 multiplies by 1: the gradient at the bias.
        pixel = tl.where((tap == 25)[None, :], 1.0, pixel)
        total += d[:, None] * pixel
    tl.store(parts_ptr + (p * chunks + chunk) * TAPS + tap, tl.sum(total, axis=0))


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
    maps,  # C
    height,
    width,
    rows,  # R
    columns,  # S
    outputs,  # M
    chunks,
    per_chunk,  # convolved pixels of a map in one chunk, a multiple of BLOCK
    padding,
    BLOCK: tl.constexpr,
    TAPS: tl.constexpr,
):
    """BLOCK pixels of dx, or a chunk's part of the gradient at a connection's weights."""
    pid = tl.program_id(0)
    if pid < input_programs:
        block, c = pid % input_blocks, pid // input_blocks
        # fmt: off
        _input_gradient(
            block, c, grad_ptr, slope_ptr, weight_ptr, targets_ptr, by_source_ptr,
            source_starts_ptr, dx_ptr, batch, maps, height, width, rows, columns, outputs,
            padding, BLOCK,
        )
    else:
        p, chunk = (pid - input_programs) // chunks, (pid - input_programs) % chunks
        _weight_gradient(
            p,
            chunk,
            grad_ptr,
            slope_ptr,
            x_ptr,
            sources_ptr,
            targets_ptr,
            parts_ptr,
            batch,
            maps,
            height,
            width,
            rows,
            columns,
            outputs,
            chunks,
            per_chunk,
            padding,
            BLOCK,
            TAPS,
        )
        # fmt: on


@triton.jit(do_not_specialize=COUNTS)
def add_up(
    parts_ptr,  # (P, chunks, 32)
    starts_ptr,  # (M + 1,)
    targets_ptr,  # (P,)
    dw_ptr,  # (P, 25)
    db_ptr,  # (M,)
    chunks,
    TAPS: tl.constexpr,
):
    """The gradient at a connection's weights, and at the bias of its map: the sum of all parts."""
    p = tl.program_id(0)
    tap = tl.arange(0, TAPS)
    total = tl.zeros([TAPS], tl.float32)
    for chunk in range(chunks):
        total += tl.load(parts_ptr + (p * chunks + chunk) * TAPS + tap)
    tl.store(dw_ptr + p * 25 + tap, total, mask=tap < 25)
    target = tl.load(targets_ptr + p)
    # All connections of a map have seen the same d; the first one speaks for them.
    first = tl.load(starts_ptr + target + 0 * tap)
    tl.store(db_ptr + target + 0 * tap, total, mask=(tap == 25) & (first == p))
