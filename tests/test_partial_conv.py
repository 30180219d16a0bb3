from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from models.kernels import dispatch
from models.kernels.table import C3_TABLE, connections, full_table
from models.layers.partial_conv import PartialConv2d

VERSIONS = sorted(set(dispatch.PARTIAL_CONV2D) - {"reference"})


@st.composite
def problems(draw):
    """A random table with input and parameters that fit it, in float64."""
    in_channels = draw(st.integers(1, 8))
    row = st.lists(st.integers(0, in_channels - 1), min_size=1, unique=True)
    table = draw(st.lists(row, min_size=1, max_size=20))
    kernel_size, padding = draw(st.sampled_from([1, 3, 5])), draw(st.integers(0, 2))
    batch, height, width = (draw(st.integers(low, 9)) for low in (1, 5, 5))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))

    def random(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    pairs = connections(table, in_channels)
    x = random(batch, in_channels, height, width)
    weight, bias = random(len(pairs), kernel_size, kernel_size), random(len(table))
    return x, weight, bias, pairs, padding


@pytest.mark.parametrize("version", VERSIONS)
@settings(deadline=None)
@given(problem=problems())
def test_value_and_gradients_equal_the_reference(version, problem):
    *tensors, pairs, padding = problem
    results = []
    for name in ("reference", version):
        inputs = [tensor.clone().requires_grad_() for tensor in tensors]
        output = dispatch.PARTIAL_CONV2D[name](*inputs, pairs, padding)
        gradients = torch.autograd.grad(output.sin().sum(), inputs)
        results.append((output, *gradients))
    for what, expected, actual in zip(["output", "x", "weight", "bias"], *results, strict=True):
        torch.testing.assert_close(
            actual, expected, rtol=1e-10, atol=1e-10, msg=lambda m, what=what: f"{what}: {m}"
        )


@pytest.mark.parametrize("version", sorted(dispatch.PARTIAL_CONV2D))
def test_gradcheck(version):
    pairs = connections([[0, 2], [1], [2, 1, 0]], 3)
    x, weight, bias = (
        torch.randn(*shape, dtype=torch.float64, requires_grad=True)
        for shape in ((2, 3, 5, 6), (6, 3, 3), (3,))
    )
    function = dispatch.PARTIAL_CONV2D[version]
    assert torch.autograd.gradcheck(lambda *args: function(*args, pairs, 1), (x, weight, bias))


def test_full_table_is_an_ordinary_convolution():
    layer = PartialConv2d(3, full_table(3, 7), padding=2).double()
    ordinary = nn.Conv2d(3, 7, 5, padding=2, dtype=torch.float64)
    ordinary.load_state_dict(
        {"weight": layer.weight.detach().view(7, 3, 5, 5), "bias": layer.bias.detach()}
    )
    x = torch.randn(4, 3, 9, 8, dtype=torch.float64)
    torch.testing.assert_close(layer(x), ordinary(x))


def test_original_c3_stores_nothing_dead():
    layer = PartialConv2d(6, C3_TABLE)
    assert {name: tuple(value.shape) for name, value in layer.state_dict().items()} == {
        "weight": (60, 5, 5),
        "bias": (16,),
    }
    assert sum(p.numel() for p in layer.parameters()) == 1516
    layer(torch.randn(2, 6, 14, 14)).square().sum().backward()
    assert (layer.weight.grad != 0).all()


def test_initialisation_follows_the_fan_in_of_each_map():
    torch.manual_seed(0)
    layer = PartialConv2d(6, C3_TABLE)
    fan_in = torch.tensor([25 * len(row) for row in C3_TABLE])
    bound = fan_in.float().rsqrt()
    for output, row in enumerate(C3_TABLE):
        weights = layer.weight[layer.connections[:, 0] == output]
        assert len(weights) == len(row)
        assert weights.abs().max() <= bound[output]
        assert weights.abs().max() > 0.9 * bound[output]
    assert (layer.bias.abs() <= bound).all()


def test_compiles_in_one_graph():
    layer = PartialConv2d(6, C3_TABLE)
    x = torch.randn(2, 6, 14, 14)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), layer(x))


def test_exports():
    layer = PartialConv2d(6, C3_TABLE)
    x = torch.randn(2, 6, 14, 14)
    torch.testing.assert_close(torch.export.export(layer, (x,)).module()(x), layer(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_composite_takes_any_floating_type(dtype):
    layer = PartialConv2d(6, C3_TABLE).to(dtype)
    assert layer(torch.randn(2, 6, 14, 14, dtype=dtype)).dtype == dtype


def test_channels_last_and_empty_batches():
    layer = PartialConv2d(6, C3_TABLE)
    x = torch.randn(3, 6, 14, 14)
    torch.testing.assert_close(layer(x.to(memory_format=torch.channels_last)), layer(x))
    assert layer(x[:0]).shape == (0, 16, 10, 10)


def test_unknown_backend_is_named():
    with pytest.raises(ValueError, match=r"backend must be one of auto, .*, got 'fast'"):
        PartialConv2d(6, C3_TABLE, backend="fast")
