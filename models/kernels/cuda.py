"""The fused block on CUDA, in Triton: forward in one launch, backward in two.

Sums are in float32, without tf32, and in a fixed order: no atomics, so the same bits every time.

Shapes: B batch, C input maps, M output maps, P connections, H W input pixels, R S pooled pixels,
N = B R S pooled or B 2R 2S convolved pixels of one map over the batch, K = 5 kernel size.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from models.kernels import doors
from models.kernels.sizes import pooled_size

BLOCK = 128  # pixels of one program
TAPS = 32  # 25 weights and a bias, filled up to a power of two
CHUNKS = 64  # parts of the batch that the weight gradient is summed over apart


@triton.jit
def _tanh(x):
    # e is at most 1, whatever x: nothing overflows. NaN stays NaN.
    e = tl.exp(-2.0 * tl.abs(x))
    size = (1.0 - e) / (1.0 + e)
    return tl.where(x < 0, -size, size)


@triton.jit
def _forward(
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
    m = tl.program_id(1)
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = n < pixels
    image = n // (rows * columns)
    r = n // columns % rows
    s = n % columns
    top = 2 * r - padding
    left = 2 * s - padding
    bias = tl.load(bias_ptr + m)
    z00 = tl.zeros([BLOCK], tl.float32) + bias
    z01 = z00
    z10 = z00
    z11 = z00
    for p in range(tl.load(starts_ptr + m), tl.load(starts_ptr + m + 1)):
        base = (image * maps + tl.load(sources_ptr + p)) * height
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
def _backward(
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
    pid = tl.program_id(0)
    if pid < input_programs:
        c = pid // input_blocks
        n = pid % input_blocks * BLOCK + tl.arange(0, BLOCK)
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
    else:
        p = (pid - input_programs) // chunks
        chunk = (pid - input_programs) % chunks
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


@triton.jit
def _add_up(
    parts_ptr,  # (P, chunks, 32)
    starts_ptr,  # (M + 1,)
    targets_ptr,  # (P,)
    dw_ptr,  # (P, 25)
    db_ptr,  # (M,)
    chunks,
    TAPS: tl.constexpr,
):
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


def _tables(pairs: Tensor, outputs: int, inputs: int) -> tuple[Tensor, ...]:
    """The connections as the kernels walk them; kept, since a look at them waits."""
    if pairs.is_inference():  # torch does not count how often it was written to
        return _new_tables(pairs, outputs, inputs)
    return _kept_tables(pairs, pairs._version, outputs, inputs)


@lru_cache(maxsize=64)
def _kept_tables(pairs: Tensor, version: int, outputs: int, inputs: int) -> tuple[Tensor, ...]:
    return _new_tables(pairs, outputs, inputs)


def _new_tables(pairs: Tensor, outputs: int, inputs: int) -> tuple[Tensor, ...]:
    doors.check_connections(pairs, outputs, inputs)
    targets, sources = pairs.to(torch.int32).T.contiguous()
    bounds = torch.arange(outputs + 1, device=pairs.device, dtype=torch.int32)
    starts = torch.searchsorted(targets, bounds, out_int32=True)
    in_order, by_source = torch.sort(sources, stable=True)
    bounds = torch.arange(inputs + 1, device=pairs.device, dtype=torch.int32)
    source_starts = torch.searchsorted(in_order, bounds, out_int32=True)
    return starts, sources, targets, by_source.to(torch.int32), source_starts


def _check_countable(*pixels: int) -> None:
    # The kernels count pixels in 32 bits, the last of them up to the end of a block.
    if max(pixels) > 2**31 - BLOCK:
        raise ValueError(
            f"expected fewer than {2**31 - BLOCK:,} pixels at once, got {max(pixels):,}"
        )


def forward(
    x: Tensor, weight: Tensor, bias: Tensor, connections: Tensor, padding: int
) -> tuple[Tensor, Tensor]:
    """Runs the block.

    Args:
        x: (B, C, H, W) float32.
        weight: (P, 5, 5).
        bias: (M,).
        connections: (P, 2), sorted by output map.
        padding: zeros on each side of H and W.

    Returns:
        y (B, M, R, S), and its derivative by the sums before the tanh (B, M, 2R, 2S).

    Raises:
        TypeError: an argument of another type.
        ValueError: shapes that do not fit, connections of maps that do not exist, more pixels than
            the kernels can count.
    """
    doors.check_conv_pool(x, weight, bias, connections, padding)
    batch, maps, height, width = x.shape
    outputs = len(bias)
    rows, columns = pooled_size(height, width, padding)
    pixels = batch * rows * columns
    _check_countable(x.numel(), 4 * pixels * outputs)
    y = x.new_empty(batch, outputs, rows, columns)
    slope = x.new_empty(batch, outputs, 2 * rows, 2 * columns)
    starts, sources, *_ = _tables(connections, outputs, maps)
    if pixels:
        _forward[(triton.cdiv(pixels, BLOCK), outputs)](
            x.contiguous(),
            weight.contiguous(),
            bias.contiguous(),
            starts,
            sources,
            y,
            slope,
            pixels,
            maps,
            height,
            width,
            rows,
            columns,
            outputs,
            padding,
            BLOCK=BLOCK,
        )
    return y, slope


def backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    connections: Tensor,
    padding: int,
    slope: Tensor,
    want_input: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `forward`'s first result; arguments and errors as there.

    Returns:
        At x (empty unless `want_input`), weight and bias.
    """
    doors.check_conv_pool_gradient(grad, x, weight, connections, padding, slope)
    _check_countable(x.numel(), slope.numel())
    batch, maps, height, width = x.shape
    _, outputs, rows, columns = grad.shape
    dx = x.new_empty(x.shape if want_input else 0)
    dw = torch.empty_like(weight, memory_format=torch.contiguous_format)
    db = x.new_empty(outputs)
    tables = _tables(connections, outputs, maps)
    starts, sources, targets, by_source, source_starts = tables
    pixels = batch * 4 * rows * columns
    per_chunk = max(1, triton.cdiv(pixels, BLOCK * CHUNKS)) * BLOCK
    chunks = triton.cdiv(pixels, per_chunk)
    parts = x.new_empty(len(weight), chunks, TAPS)
    input_blocks = triton.cdiv(batch * height * width, BLOCK)
    input_programs = maps * input_blocks if want_input else 0
    if input_programs + chunks:
        _backward[(input_programs + len(weight) * chunks,)](
            grad.contiguous(),
            slope.contiguous(),
            x.contiguous(),
            weight.contiguous(),
            sources,
            targets,
            by_source,
            source_starts,
            dx,
            parts,
            input_programs,
            input_blocks,
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
            BLOCK=BLOCK,
            TAPS=TAPS,
        )
    _add_up[(len(weight),)](parts, starts, targets, dw, db, chunks, TAPS=TAPS)
    return dx, dw, db
