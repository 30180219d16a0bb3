"""The fused block as one operator of torch: compile, export, DDP and checkpointing see one node.

`lenet5::conv_pool` is partial convolution, bias, tanh, 2x2 average pool and tanh, in float32: on
CUDA for images (B, C, H, W), on the CPU for lanes (G, C, H, W, L).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from models.kernels import doors
from models.kernels.conv_pool import composite
from models.kernels.lanes import LANES, from_lanes, to_lanes
from models.kernels.sizes import pooled_size


def _kernels(x: Tensor) -> Any:
    """The kernels for x's device, imported on first use, since Numba and Triton load slowly."""
    if x.device.type == "cpu":
        from models.kernels.conv_pool import cpu

        return cpu
    if x.device.type == "cuda":
        from models.kernels.conv_pool import cuda

        return cuda
    raise NotImplementedError(f"no fused kernel for {x.device.type}")


def _layout(x: Tensor) -> doors.Shape:
    return doors.GROUPS if x.device.type == "cpu" else doors.IMAGES


@torch.library.custom_op("lenet5::conv_pool", mutates_args=())
def conv_pool(
    x: Tensor, weight: Tensor, bias: Tensor, connections: Tensor, padding: int
) -> tuple[Tensor, Tensor]:
    """Computes y, and its derivative by the pre-activations, which the backward pass needs."""
    y, slope = _kernels(x).forward(x, weight, bias, connections, padding)
    return y, slope


@conv_pool.register_fake
def _(
    x: Tensor, weight: Tensor, bias: Tensor, connections: Tensor, padding: int
) -> tuple[Tensor, Tensor]:
    doors.check_conv_pool(x, weight, bias, connections, padding, _layout(x))
    batch, _, height, width, *lanes = x.shape
    rows, columns = pooled_size(height, width, padding)
    y = x.new_empty(batch, len(bias), rows, columns, *lanes)
    return y, x.new_empty(batch, len(bias), 2 * rows, 2 * columns, *lanes)


@torch.library.custom_op("lenet5::conv_pool_backward", mutates_args=())
def conv_pool_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    connections: Tensor,
    padding: int,
    slope: Tensor,
    want_input: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients at x (empty unless wanted), weight and bias."""
    dx, dw, db = _kernels(x).backward(grad, x, weight, connections, padding, slope, want_input)
    return dx, dw, db


@conv_pool_backward.register_fake
def _(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    connections: Tensor,
    padding: int,
    slope: Tensor,
    want_input: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    doors.check_conv_pool_gradient(grad, x, weight, connections, padding, slope, _layout(x))
    dx = x.new_empty(x.shape if want_input else 0)
    dw = torch.empty_like(weight, memory_format=torch.contiguous_format)
    return dx, dw, weight.new_empty(slope.shape[1])


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, weight, bias, connections, padding = inputs
    _, slope = output
    ctx.mark_non_differentiable(slope)
    # Otherwise every backward pass fills a tensor like `slope` with zeros.
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, weight, bias, connections, slope)
    ctx.padding = padding


def _differentiate(
    ctx: Any, grad: Tensor, _: Tensor, backward: Any = conv_pool_backward
) -> tuple[Tensor | None, ...]:
    x, weight, bias, connections, slope = ctx.saved_tensors
    want_input = ctx.needs_input_grad[0]
    if torch.is_grad_enabled():

        def block(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            return _composite(x, weight, bias, connections, ctx.padding)

        parts = _differentiably(block, (x, weight, bias), grad, ctx.needs_input_grad[:3])
        return *parts, None, None
    dx, dw, db = backward(grad, x, weight, connections, ctx.padding, slope, want_input)
    return dx if want_input else None, dw, db, None, None


def _differentiably(
    function: Callable[..., Tensor], inputs: Sequence[Tensor], grad: Tensor, needed: Sequence[bool]
) -> list[Tensor | None]:
    """The gradients at the inputs that need one, in a form that can be differentiated again.

    Autograd is enabled in a backward pass only if `create_graph` has asked for that.
    """
    # Views, since an input that is computed from another one would add to that one's gradient.
    inputs = [part.view_as(part) for part in inputs]
    wanted = [part for part, is_needed in zip(inputs, needed, strict=True) if is_needed]
    found = iter(torch.autograd.grad(function(*inputs), wanted, grad, create_graph=True))
    return [next(found) if is_needed else None for is_needed in needed]


def _composite(x: Tensor, *parts: Any) -> Tensor:
    """The block, computed by ordinary operators, for images or lanes."""
    if x.dim() == 4:
        return composite.conv_pool(x, *parts)
    return to_lanes(composite.conv_pool(from_lanes(x, LANES * len(x)), *parts))


conv_pool.register_autograd(_differentiate, setup_context=_save)


class _Eager(torch.autograd.Function):
    """The operator without the dispatcher's wrappers, which cost 0.15 ms a call on a laptop."""

    # Without setup_context, since torch then binds the arguments in every call, for 0.05 ms.
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, connections: Tensor, padding: int
    ) -> tuple[Tensor, Tensor]:
        output = _kernels(x).forward(x, weight, bias, connections, padding)
        _save(ctx, (x, weight, bias, connections, padding), output)
        y, slope = output
        return y, slope

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        return _differentiate(ctx, grad, _, _kernels(grad).backward)


def fused(x: Tensor, weight: Tensor, bias: Tensor, connections: Tensor, padding: int = 0) -> Tensor:
    """Same as `reference.conv_pool`, for float32 and 5x5 kernels; takes and returns lanes too."""
    if x.device.type == "cpu" and x.dim() == 4:
        lanes = fused(to_lanes(x), weight, bias, connections, padding)
        return from_lanes(lanes, len(x))
    eager = type(x) is Tensor and not torch.compiler.is_compiling()
    run = _Eager.apply if eager else conv_pool
    y: Tensor = run(x, weight, bias, connections, padding)[0]
    return y


class _EagerTwo(torch.autograd.Function):
    """Two consecutive blocks as one node: half of Python's cost, and the maps stay in the cache."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *parts: Any) -> Tensor:
        kernels = _kernels(x)
        first, second = kernels.Convolution(*parts[:4]), kernels.Convolution(*parts[4:])
        y, state = kernels.forward_two(x, first, second)
        ctx.save_for_backward(x, *first[:3], *second[:3], state)
        ctx.paddings = (first.padding, second.padding)
        result: Tensor = y
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, *blocks, state = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _differentiate_two(ctx, grad)
        kernels = _kernels(x)
        first = kernels.Convolution(*blocks[:3], ctx.paddings[0])
        second = kernels.Convolution(*blocks[3:], ctx.paddings[1])
        dw, db, dw2, db2 = kernels.backward_two(grad, x, first, second, state)
        return None, dw, db, None, None, dw2, db2, None, None


def _differentiate_two(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """The gradient of `_EagerTwo`, in a form that can be differentiated again."""
    x, weight, bias, pairs, weight2, bias2, pairs2, _ = ctx.saved_tensors
    padding, padding2 = ctx.paddings

    def blocks(weight: Tensor, bias: Tensor, weight2: Tensor, bias2: Tensor) -> Tensor:
        maps = composite.conv_pool(x, weight, bias, pairs, padding)
        return composite.conv_pool(maps, weight2, bias2, pairs2, padding2)

    needed = [ctx.needs_input_grad[n] for n in (1, 2, 5, 6)]
    parts = _differentiably(blocks, (weight, bias, weight2, bias2), grad, needed)
    return None, *parts[:2], None, None, *parts[2:], None, None


def fused_two(x: Tensor, first: tuple[Any, ...], second: tuple[Any, ...]) -> Tensor:
    """`fused` twice, each with (weight, bias, connections, padding); x is (B, C, H, W).

    On the CPU it is one operator, unless the gradient at x is needed.
    """
    if x.device.type != "cpu":
        return fused(fused(x, *first), *second)
    if x.requires_grad or type(x) is not Tensor or torch.compiler.is_compiling():
        return from_lanes(fused(fused(to_lanes(x), *first), *second), len(x))
    y: Tensor
    if torch.is_grad_enabled() and any(part.requires_grad for part in first[:2] + second[:2]):
        y = _EagerTwo.apply(x, *first, *second)
    else:
        kernels = _kernels(x)
        y, _ = kernels.forward_two(
            x, kernels.Convolution(*first), kernels.Convolution(*second), keep=False
        )
    return y
