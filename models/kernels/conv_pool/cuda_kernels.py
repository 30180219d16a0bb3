"""Triton kernels of the fused block's forward pass; launched by `cuda.py`.

Sums are in float32, without tf32, and in a fixed order: no atomics, so the same bits every time.
Shapes as in `cuda.py`.
"""

from __future__ import annotations

import triton
import triton.language as tl

# Not specialized: otherwise each size of mini-batch would be compiled anew during a training. The
# layer's sizes are constants, but for its connections: the compiler then computes addresses, which
# takes up to half of the instructions out of the loops.
COUNTS = [
    *("pixels", "batch", "input_programs", "input_blocks", "chunks", "per_chunk"),
    *("connections", "chunks2"),
]


@triton.jit
def tanh(x):
    """The hyperbolic tangent, with an error of at most 2e-7, near 0 relative to its value too."""
    # e is at most 1, whatever x: nothing overflows. NaN stays NaN.
    e = tl.exp(-2.0 * tl.abs(x))
    size = 1.0 - 2.0 * e / (1.0 + e)
    # Near 0 that loses digits: there x + x^3 p(x^2), with the numbers of Cephes' tanhf.
    s = x * x
    p = ((-5.70498872745e-3 * s + 2.06390887954e-2) * s - 5.37397155531e-2) * s
    small = x + x * s * ((p + 1.33314422036e-1) * s - 3.33332819422e-1)
    return tl.where(tl.abs(x) < 0.625, small, tl.where(x < 0, -size, size))


@triton.jit
def among(valid, at, FIRST: tl.constexpr, LAST: tl.constexpr, SIZE: tl.constexpr):
    """Whether rows or columns from FIRST to LAST are some of SIZE; asks only where that is open."""
    if FIRST < 0:
        valid = valid & (at >= 0)
    if LAST >= SIZE:
        valid = valid & (at < SIZE)
    return valid


@triton.jit
def in_map(valid, first, N: tl.constexpr, SIZE: tl.constexpr, PADDING: tl.constexpr):
    """Whether row or column N of windows of 6, which begin at `first`, is one of SIZE."""
    last: tl.constexpr = (SIZE + 2 * PADDING - 4) // 2 * 2 - 2 - PADDING  # where the last begins
    return among(valid, first + N, N - PADDING, N + last, SIZE)


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
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    PADDING: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Four pre-activations that are pooled together, from the connections first to last - 1."""
    everywhere = tl.full([BLOCK], True, tl.int1)
    z00 = tl.zeros([BLOCK], tl.float32) + bias
    z01 = z00
    z10 = z00
    z11 = z00
    for p in range(first, last):
        # All places of a window are a number apart that is known.
        at = x_ptr + ((plane + tl.load(sources_ptr + p)) * HEIGHT + top) * WIDTH + left
        w_ptr = weight_ptr + p * 25
        # Each pixel of the 6x6 window is read once for the four sums it belongs to.
        for i in tl.static_range(6):
            for j in tl.static_range(6):
                valid = in_map(everywhere, top, i, HEIGHT, PADDING)
                valid = in_map(valid, left, j, WIDTH, PADDING)
                pixel = tl.load(at + (i * WIDTH + j), mask=valid, other=0.0)
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
    MAPS: tl.constexpr,  # C
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,  # R
    COLUMNS: tl.constexpr,  # S
    OUTPUTS: tl.constexpr,  # M
    PADDING: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """BLOCK pooled pixels of one output map: y, and slope, its derivative by the four sums."""
    m = tl.program_id(1)
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = n < pixels
    n = tl.minimum(n, pixels - 1)  # those beyond compute the last one too, and do not ask
    image = n // (ROWS * COLUMNS)
    r = n // COLUMNS % ROWS
    s = n % COLUMNS
    top = 2 * r - PADDING
    left = 2 * s - PADDING
    z00, z01, z10, z11 = _four_sums(
        x_ptr,
        weight_ptr,
        tl.load(bias_ptr + m),
        sources_ptr,
        tl.load(starts_ptr + m),
        tl.load(starts_ptr + m + 1),
        image * MAPS,
        top,
        left,
        HEIGHT,
        WIDTH,
        PADDING,
        BLOCK,
    )
    a00 = tanh(z00)
    a01 = tanh(z01)
    a10 = tanh(z10)
    a11 = tanh(z11)
    y = tanh(0.25 * (a00 + a01 + (a10 + a11)))
    tl.store(y_ptr + ((image * OUTPUTS + m) * ROWS + r) * COLUMNS + s, y, mask=inside)
    scale = 0.25 * (1.0 - y * y)
    at = slope_ptr + ((image * OUTPUTS + m) * 2 * ROWS + 2 * r) * 2 * COLUMNS + 2 * s
    tl.store(at, scale * (1.0 - a00 * a00), mask=inside)
    tl.store(at + 1, scale * (1.0 - a01 * a01), mask=inside)
    tl.store(at + 2 * COLUMNS, scale * (1.0 - a10 * a10), mask=inside)
    tl.store(at + 2 * COLUMNS + 1, scale * (1.0 - a11 * a11), mask=inside)
