"""Two blocks in one operator against the same blocks one after the other."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from models import nets
from models.kernels.conv_pool import operator, reference
from models.kernels.lanes import LANES
from models.kernels.table import connections, full_table
from models.layers.conv_pool import ConvPool, conv_pool_twice


@st.composite
def tables(draw, in_channels):
    row = st.lists(st.integers(0, in_channels - 1), min_size=1, unique=True)
    return draw(st.lists(row, min_size=1, max_size=17))


@st.composite
def pairs_of_blocks(draw):
    """x in float64 and the arguments of two blocks that fit it and each other."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    channels = in_channels = draw(st.integers(1, 6))
    blocks = []
    for _ in range(2):
        table = draw(tables(channels))
        pairs = connections(table, channels)
        scale = 5 * (len(pairs) / len(table)) ** 0.5
        weight = torch.randn(len(pairs), 5, 5, dtype=torch.float64, generator=generator) / scale
        bias = torch.randn(len(table), dtype=torch.float64, generator=generator)
        blocks.append((weight, bias, pairs, draw(st.integers(0, 2))))
        channels = len(table)
    batch = draw(st.sampled_from([1, 2, LANES - 1, LANES, LANES + 1, 31, 100]))
    height, width = draw(st.integers(16, 33)), draw(st.integers(16, 33))
    x = torch.randn(batch, in_channels, height, width, dtype=torch.float64, generator=generator)
    return x, *blocks


def one_after_the_other(x, first, second):
    return reference.conv_pool(reference.conv_pool(x, *first), *second)


def run(function, x, first, second, dtype):
    """Output and the gradients of both weights and biases."""

    def cast(block):
        weight, bias, *rest = block
        return *(t.detach().to(dtype).requires_grad_() for t in (weight, bias)), *rest

    first, second = cast(first), cast(second)
    output = function(x.to(dtype), first, second)
    # All positive: sums that cancel would measure float32, not the kernel.
    direction = torch.linspace(0.5, 1.5, output.numel(), dtype=output.dtype).view(output.shape)
    return output, *torch.autograd.grad((output * direction).sum(), (*first[:2], *second[:2]))


NAMES = ["output", "first weight", "first bias", "second weight", "second bias"]


@settings(deadline=None)
@given(problem=pairs_of_blocks())
def test_two_blocks_equal_the_reference(problem):
    expected = run(one_after_the_other, *problem, torch.float64)
    actual = run(operator.fused_two, *problem, torch.float32)
    for name, a, e in zip(NAMES, actual, expected, strict=True):
        assert a.shape == e.shape, name
        # One output near 0 is the rest of terms of about 1, which have rounding of their own.
        error, size = (a - e).norm(), e.norm()
        assert error <= (1e-5 * size + 1e-6 if name == "output" else 1e-4 * size), name


def lenet_problem(batch=LANES + 1):
    torch.manual_seed(0)
    net = nets.LeNet5(backend="cpu")
    return torch.rand(batch, 1, 28, 28), net.c1.arguments(), net.c3.arguments()


def test_two_runs_give_the_same_bits():
    first, second = (run(operator.fused_two, *lenet_problem(), torch.float32) for _ in range(2))
    for name, a, b in zip(NAMES, first, second, strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("threads", [1, 2])
def test_any_number_of_threads_is_right(threads):
    expected = run(one_after_the_other, *lenet_problem(), torch.float64)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        actual = run(operator.fused_two, *lenet_problem(), torch.float32)
    finally:
        torch.set_num_threads(before)
    for name, a, e in zip(NAMES, actual, expected, strict=True):
        torch.testing.assert_close(a, e.float(), rtol=1e-4, atol=1e-5, msg=name)


def test_gradient_at_the_images_and_beyond():
    x, first, second = lenet_problem()
    x.requires_grad_()
    actual, expected = (
        torch.autograd.grad(function(x, first, second).sum(), x)[0]
        for function in (operator.fused_two, one_after_the_other)
    )
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_expanded_gradient_and_frozen_weights():
    x, (weight, bias, *rest), second = lenet_problem()
    first = weight.detach(), bias, *rest
    y = operator.fused_two(x, first, second)
    wanted = (bias, *second[:2])
    expanded = torch.autograd.grad(y.sum(), wanted, retain_graph=True)  # strides of 0
    whole = torch.autograd.grad((y * torch.ones_like(y)).sum(), wanted)
    for a, b in zip(expanded, whole, strict=True):
        assert torch.equal(a, b)


def test_any_memory_layout_and_an_empty_batch():
    _, first, second = lenet_problem()
    wide = torch.rand(3, 1, 28, 56)[..., ::2]
    whole = operator.fused_two(wide.contiguous(), first, second)
    assert torch.equal(operator.fused_two(wide, first, second), whole)
    empty = operator.fused_two(wide[:0], first, second)
    assert empty.shape == (0, 16, 5, 5)
    empty.sum().backward()
    assert not first[0].grad.any()


@pytest.mark.parametrize("batch", [LANES + 1, 100])
def test_answers_alone_are_the_same_bits(batch):
    """Without a gradient, all groups of a thread use one piece of memory."""
    _, first, second = lenet_problem()
    x = torch.rand(batch, 1, 28, 28)
    expected = operator.fused_two(x, first, second)
    with torch.no_grad():
        assert torch.equal(operator.fused_two(x, first, second), expected)


@pytest.mark.parametrize("maps", [(2, 6), (1, 5)])
def test_wrong_number_of_maps_is_refused(maps):
    images, between = maps
    first = ConvPool(images, full_table(images, between), backend="cpu")
    second = ConvPool(6, full_table(6, 2), backend="cpu")
    with pytest.raises(ValueError, match="input maps, got"):
        conv_pool_twice(torch.rand(2, 1, 28, 28), first, second)


@pytest.mark.parametrize("backends", [("composite", "cpu"), ("cpu", "reference")])
def test_layers_of_different_versions_run_one_after_the_other(backends):
    first, second = (
        ConvPool(maps, full_table(maps, 3), backend=backend)
        for maps, backend in zip((1, 3), backends, strict=True)
    )
    x = torch.rand(3, 1, 20, 18)
    expected = nn.Sequential(first, second)(x)
    torch.testing.assert_close(conv_pool_twice(x, first, second), expected)


@pytest.mark.slow
def test_network_compiles_exports_and_checkpoints():
    net = nets.LeNet5(backend="cpu")
    x = torch.rand(3, 1, 28, 28)
    expected = net(x)
    torch.testing.assert_close(
        torch.compile(net, fullgraph=True, backend="aot_eager")(x), expected, rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(torch.export.export(net, (x,)).module()(x), expected)
    expected.sum().backward()
    gradient = net.c1.weight.grad.clone()
    net.zero_grad()
    torch.utils.checkpoint.checkpoint(net, x, use_reentrant=False).sum().backward()
    assert torch.equal(net.c1.weight.grad, gradient)
