"""The fused block on CUDA, in Triton: forward in one launch, backward in two.

Shapes: B batch, C input maps, M output maps, P connections, H W input pixels, R S pooled pixels,
N = B R S pooled or B 2R 2S convolved pixels of one map over the batch. Kernels are compiled for the
C, M, H, W and padding of a layer; its connections and the batch are data.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from models.kernels import doors
from models.kernels.conv_pool import cuda_gradient as gradient
from models.kernels.conv_pool import cuda_kernels as kernels
from models.kernels.sizes import pooled_size

BLOCK = 32  # pixels of one program, which is one warp
TAPS = 32  # 25 weights and a bias, filled up to a power of two
CHUNKS = 64  # at most: parts of the batch, each with its own sums of the weight gradient


_kept: WeakIdKeyDictionary = WeakIdKeyDictionary()
"""Maps connections to their version and tables, kept as long: a CUDA graph reads the tables."""


def _tables(pairs: Tensor, outputs: int, inputs: int) -> tuple[Tensor, ...]:
    """The connections as the kernels read them; cached, since checking them synchronises."""
    if pairs.is_inference():  # it has no version
        return _new_tables(pairs, outputs, inputs)
    state = pairs._version, outputs, inputs
    if pairs not in _kept or _kept[pairs][0] != state:
        _kept[pairs] = state, _new_tables(pairs, outputs, inputs)
    tables: tuple[Tensor, ...] = _kept[pairs][1]
    return tables


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
    limit = 2**31 - BLOCK
    if max(pixels) > limit:
        raise ValueError(f"expected fewer than {limit:,} pixels at once, got {max(pixels):,}")


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
        y (B, M, R, S), and its derivative by the pre-activations (B, M, 2R, 2S).

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
        with torch.cuda.device_of(x):  # Triton launches on the current device
            kernels.forward[(triton.cdiv(pixels, BLOCK), outputs)](
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
                num_warps=1,
            )
    return y, slope


class Parts(NamedTuple):
    """Partial sums of a layer's gradient, and where their totals go."""

    sums: Tensor
    """(P, chunks, TAPS): at the weights of each connection, and at the bias of its map."""
    starts: Tensor
    targets: Tensor
    dw: Tensor
    """(P, 5, 5)"""
    db: Tensor
    """(M,)"""


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
        The gradients at x (empty unless `want_input`), weight and bias.
    """
    doors.check_conv_pool_gradient(grad, x, weight, connections, padding, slope)
    dx = x.new_empty(x.shape if want_input else 0)
    dw = torch.empty_like(weight, memory_format=torch.contiguous_format)
    db = x.new_empty(grad.shape[1])
    part = differentiate(grad, x, weight, connections, padding, slope, dx, dw, db)
    add_up(part, part._replace(dw=dw[:0]))
    return dx, dw, db


def differentiate(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    connections: Tensor,
    padding: int,
    slope: Tensor,
    dx: Tensor,
    dw: Tensor,
    db: Tensor,
) -> Parts:
    """The first launch of `backward`; the partial sums that it returns are for `add_up`.

    Args:
        grad: (B, M, R, S) gradient at `forward`'s first result.
        x: argument of `forward`, like the next three.
        weight: (P, 5, 5).
        connections: (P, 2).
        padding: zeros on each side.
        slope: `forward`'s second result.
        dx: receives the gradient at x; empty if that is not needed.
        dw: will receive the gradient at weight.
        db: will receive the gradient at the bias.
    """
    _check_countable(x.numel(), slope.numel())
    batch, maps, height, width = x.shape
    _, outputs, rows, columns = grad.shape
    tables = _tables(connections, outputs, maps)
    starts, sources, targets, by_source, source_starts = tables
    pixels = batch * rows * columns
    # Four blocks at least: adding a chunk's sums up takes as long as two.
    per_chunk = max(4, triton.cdiv(pixels, BLOCK * CHUNKS)) * BLOCK
    chunks = triton.cdiv(pixels, per_chunk)
    parts = x.new_empty(len(weight), chunks, TAPS)
    squares = batch * ((height + padding % 2 + 1) // 2) * ((width + padding % 2 + 1) // 2)
    input_blocks = triton.cdiv(squares, BLOCK)
    input_programs = maps * input_blocks if dx.numel() else 0
    if input_programs + chunks:
        with torch.cuda.device_of(x):
            # fmt: off
            gradient.backward[(input_programs + len(weight) * chunks,)](
                grad.contiguous(), slope.contiguous(), x.contiguous(), weight.contiguous(),
                sources, targets, by_source, source_starts, dx, parts, input_programs,
                input_blocks, batch, chunks, per_chunk, maps, height, width, rows, columns,
                outputs, padding, BLOCK=BLOCK, TAPS=TAPS, num_warps=1,
            )
            # fmt: on
    return Parts(parts, starts, targets, dw, db)


def add_up(first: Parts, second: Parts) -> None:
    """Writes the gradients of two layers, in one launch."""
    with torch.cuda.device_of(first.dw):
        gradient.add_up[(len(first.dw) + len(second.dw),)](
            *first,
            first.sums.shape[1],
            len(first.dw),
            *second,
            second.sums.shape[1],
            CHUNKS=CHUNKS,
            TAPS=TAPS,
            num_warps=1,
        )
