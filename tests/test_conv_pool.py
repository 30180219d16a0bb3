"""Every version of the block against the reference, forward and backward."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import assert_block_close, block_tensors, output_and_gradients
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch._subclasses import FakeTensorMode

from models.kernels import packages
from models.kernels.conv_pool import composite, dispatch, operator, reference
from models.kernels.lanes import LANES, from_lanes, to_lanes
from models.kernels.table import C3_TABLE, connections, full_table
from models.layers.conv_pool import ConvPool

NAMES = ["output", "x", "weight", "bias"]


@st.composite
def problems(draw, *, sizes, batches, kernel_sizes=(5,)):
    """A random table, and tensors that fit it."""
    in_channels = draw(st.integers(1, 8))
    row = st.lists(st.integers(0, in_channels - 1), min_size=1, unique=True)
    table = draw(st.lists(row, min_size=1, max_size=20))
    kernel_size, padding = draw(st.sampled_from(kernel_sizes)), draw(st.integers(0, 2))
    height, width = draw(sizes), draw(sizes)
    pairs = connections(table, in_channels)
    shape = (draw(batches), in_channels, height, width)
    seed = draw(st.integers(0, 2**32))
    return *block_tensors(seed, *shape, pairs, len(table), kernel_size), pairs, padding


SMALL = problems(sizes=st.integers(6, 12), batches=st.integers(1, 9), kernel_sizes=(1, 3, 5))
LARGE = problems(
    sizes=st.integers(8, 40), batches=st.sampled_from([1, 2, LANES - 1, LANES, LANES + 1, 33])
)


@settings(deadline=None)
@given(problem=SMALL)
def test_composite_equals_the_reference_in_float64(problem):
    expected, actual = (
        output_and_gradients(version.conv_pool, problem[:3], *problem[3:])
        for version in (reference, composite)
    )
    assert_block_close(actual, expected, 1e-12, 1e-12)


@settings(deadline=None)
@given(problem=LARGE)
def test_cpu_kernel_equals_the_reference(problem):
    expected = output_and_gradients(reference.conv_pool, problem[:3], *problem[3:])
    actual = output_and_gradients(operator.fused, [t.float() for t in problem[:3]], *problem[3:])
    assert_block_close(actual, expected)


@pytest.mark.parametrize("version", [reference.conv_pool, composite.conv_pool, operator.fused])
def test_images_too_small_to_pool_are_refused(version):
    x, weight, bias = (torch.zeros(*shape) for shape in ((2, 1, 8, 5), (1, 5, 5), (1,)))
    with pytest.raises(RuntimeError, match="too small"):
        version(x, weight, bias, connections([[0]], 1), 0)


def test_images_too_small_to_pool_are_refused_while_tracing():
    pairs = connections([[0]], 1)
    with FakeTensorMode(allow_non_fake_inputs=True), pytest.raises(RuntimeError, match="too small"):
        operator.conv_pool(
            torch.zeros(1, 1, 8, 5, LANES), torch.zeros(1, 5, 5), torch.zeros(1), pairs, 0
        )


@pytest.mark.slow
@pytest.mark.parametrize("version", ["composite", "reference"])
def test_gradcheck(version):
    pairs = connections([[0, 2], [1], [2, 1, 0]], 3)
    x, weight, bias = (
        torch.randn(*shape, dtype=torch.float64, requires_grad=True)
        for shape in ((2, 3, 5, 6), (6, 3, 3), (3,))
    )
    function = dispatch.CONV_POOL[version]
    assert torch.autograd.gradcheck(lambda *args: function(*args, pairs, 1), (x, weight, bias))


def lanes_problem(want_input=True):
    pairs = connections(C3_TABLE, 6)
    x, weight, bias = (t.float() for t in block_tensors(0, LANES + 1, 6, 14, 14, pairs, 16, 5))
    x = to_lanes(x).requires_grad_(want_input)
    return x, weight.requires_grad_(), bias.requires_grad_(), pairs, 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
@pytest.mark.parametrize("want_input", [True, False])
def test_operator_passes_opcheck(want_input):
    torch.library.opcheck(operator.conv_pool, lanes_problem(want_input))


def test_operator_and_eager_shortcut_give_the_same_bits():
    problem = lanes_problem()
    shortcut = output_and_gradients(operator.fused, problem[:3], *problem[3:])
    whole = output_and_gradients(
        lambda *args: operator.conv_pool(*args)[0], problem[:3], *problem[3:]
    )
    for name, a, b in zip(NAMES, shortcut, whole, strict=True):
        assert torch.equal(a, b), name


def test_two_runs_give_the_same_bits():
    problem = lanes_problem()
    first, second = (
        output_and_gradients(operator.fused, problem[:3], *problem[3:]) for _ in range(2)
    )
    for name, a, b in zip(NAMES, first, second, strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("threads", [1, 2])
def test_any_number_of_threads_is_right(threads):
    x, weight, bias, pairs, padding = lanes_problem()
    inputs = [from_lanes(x, LANES + 1), weight, bias]
    expected = output_and_gradients(
        reference.conv_pool, [t.double() for t in inputs], pairs, padding
    )
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert_block_close(output_and_gradients(operator.fused, inputs, pairs, padding), expected)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("frozen", range(3), ids=["x", "weight", "bias"])
def test_frozen_tensors_get_no_gradient(frozen):
    *inputs, pairs, padding = lanes_problem()
    inputs[frozen] = inputs[frozen].detach()
    operator.fused(*inputs, pairs, padding).sum().backward()
    assert [tensor.grad is None for tensor in inputs] == [i == frozen for i in range(3)]


@pytest.mark.parametrize("batch", [1, LANES, LANES + 1])
def test_lanes_round_trip(batch):
    x = torch.randn(batch, 2, 3, 4)
    assert to_lanes(x).shape == (-(-batch // LANES), 2, 3, 4, LANES)
    assert torch.equal(from_lanes(to_lanes(x), batch), x)


def test_matrices_of_the_kernel_filter_in_both_directions():
    """Four sums of five taps and eight pixels, and the gradients at taps and at pixels."""
    from models.kernels.simd import winograd

    rng = np.random.default_rng(0)
    taps, pixels, slopes = (rng.standard_normal(count) for count in (5, 8, 4))
    at_points = winograd.OF_TAPS @ taps, winograd.OF_PIXELS @ pixels, winograd.OF_SUMS @ slopes
    sums = winograd.OF_SUMS.T @ (at_points[0] * at_points[1])
    np.testing.assert_allclose(sums, np.correlate(pixels, taps), rtol=1e-5)
    of_taps = winograd.OF_TAPS.T @ (at_points[1] * at_points[2])
    np.testing.assert_allclose(of_taps, np.correlate(pixels, slopes), rtol=1e-5)
    of_pixels = winograd.OF_PIXELS.T @ (at_points[0] * at_points[2])
    np.testing.assert_allclose(of_pixels, np.convolve(taps, slopes), rtol=1e-5)


def test_tanh_of_the_kernel_is_within_2e_7_everywhere():
    bits = np.random.default_rng(0).integers(0, 2**32, 500_000, dtype=np.uint32)
    everywhere = bits.view(np.float32)[np.isfinite(bits.view(np.float32))]
    near = np.linspace(-10, 10, 500_000, dtype=np.float32)
    special = np.float32([0.0, -0.0, np.inf, -np.inf])
    x = np.concatenate([everywhere, near, special])
    error = np.abs(kernel_tanh(x).astype(np.float64) - np.tanh(x.astype(np.float64)))
    assert error.max() < 2e-7
    assert np.isnan(kernel_tanh(np.float32([np.nan]))).all()
    np.testing.assert_array_equal(kernel_tanh(np.float32([np.inf, -np.inf])), [1, -1])


def kernel_tanh(x):
    import numba

    from models.kernels.simd.tanh import tanh
    from models.kernels.simd.vector import load, store

    @numba.njit
    def all_of(x, y):
        for i in range(0, len(x), LANES):
            store(y, i, tanh(load(x, i)))

    padded = np.concatenate([x, np.zeros(-len(x) % LANES, np.float32)])
    y = np.empty_like(padded)
    all_of(padded, y)
    return y[: len(x)]


def test_full_table_is_an_ordinary_convolution():
    layer = ConvPool(3, full_table(3, 7), padding=2).double()
    ordinary = nn.Conv2d(3, 7, 5, padding=2, dtype=torch.float64)
    ordinary.load_state_dict(
        {"weight": layer.weight.detach().view(7, 3, 5, 5), "bias": layer.bias.detach()}
    )
    x = torch.randn(4, 3, 9, 8, dtype=torch.float64)
    block = nn.Sequential(ordinary, nn.Tanh(), nn.AvgPool2d(2), nn.Tanh())
    torch.testing.assert_close(layer(x), block(x))


def test_original_c3_stores_nothing_dead():
    layer = ConvPool(6, C3_TABLE)
    assert {name: tuple(value.shape) for name, value in layer.state_dict().items()} == {
        "weight": (60, 5, 5),
        "bias": (16,),
    }
    assert sum(p.numel() for p in layer.parameters()) == 1516
    layer(torch.randn(2, 6, 14, 14)).square().sum().backward()
    assert (layer.weight.grad != 0).all()


def test_initialisation_follows_the_fan_in_of_each_map():
    torch.manual_seed(0)
    layer = ConvPool(6, C3_TABLE)
    fan_in = torch.tensor([25 * len(row) for row in C3_TABLE])
    bound = fan_in.float().rsqrt()
    for output, row in enumerate(C3_TABLE):
        weights = layer.weight[layer.connections[:, 0] == output]
        assert len(weights) == len(row)
        assert weights.abs().max() <= bound[output]
        assert weights.abs().max() > 0.9 * bound[output]
    assert (layer.bias.abs() <= bound).all()


@pytest.mark.parametrize("backend", ["composite", "cpu"])
def test_compiles_in_one_graph(backend):
    layer = ConvPool(6, C3_TABLE, backend=backend)
    x = torch.randn(2, 6, 14, 14)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), layer(x))
    compiled(x).sum().backward()
    actual = layer.weight.grad.clone()
    layer.zero_grad()
    layer(x).sum().backward()
    torch.testing.assert_close(actual, layer.weight.grad)


@pytest.mark.parametrize("backend", ["composite", "cpu"])
def test_exports(backend):
    layer = ConvPool(6, C3_TABLE, backend=backend)
    x = torch.randn(2, 6, 14, 14)
    torch.testing.assert_close(torch.export.export(layer, (x,)).module()(x), layer(x))


def test_activation_checkpointing():
    layer = ConvPool(6, C3_TABLE)
    x = torch.randn(2, 6, 14, 14)
    torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=False).sum().backward()
    actual = layer.weight.grad.clone()
    layer.zero_grad()
    layer(x).sum().backward()
    assert torch.equal(actual, layer.weight.grad)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_go_through_composite(dtype):
    layer = ConvPool(6, C3_TABLE).to(dtype)
    x = torch.randn(2, 6, 14, 14, dtype=dtype)
    assert layer.version(x) == "composite"
    assert layer(x).dtype == dtype


def test_autocast_goes_through_composite():
    layer = ConvPool(6, C3_TABLE)
    x = torch.randn(2, 6, 14, 14)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer.version(x) == "composite"
        torch.testing.assert_close(layer(x).float(), ConvPool.forward(layer, x).float())
    assert layer.version(x) == "cpu"


def test_expanded_gradient():
    *inputs, pairs, padding = lanes_problem()
    y = operator.fused(*inputs, pairs, padding)
    expanded = torch.autograd.grad(y.sum(), inputs, retain_graph=True)  # strides of 0
    whole = torch.autograd.grad((y * torch.ones_like(y)).sum(), inputs)
    for name, a, b in zip(NAMES[1:], expanded, whole, strict=True):
        assert torch.equal(a, b), name


def test_wrong_number_of_input_maps_is_refused():
    with pytest.raises(ValueError, match="expected 6 input maps, got 3"):
        ConvPool(6, C3_TABLE)(torch.randn(2, 3, 14, 14))


def test_any_memory_layout_and_an_empty_batch():
    layer = ConvPool(6, C3_TABLE, backend="cpu")
    x = torch.randn(3, 6, 14, 14)
    assert torch.equal(layer(x.to(memory_format=torch.channels_last)), layer(x))
    wide = torch.randn(3, 6, 14, 28)
    assert torch.equal(layer(wide[..., ::2]), layer(wide[..., ::2].contiguous()))
    assert layer(x[:0]).shape == (0, 16, 5, 5)


@pytest.mark.parametrize(
    ("backend", "message"),
    [
        ("fast", r"backend must be one of auto, .*, got 'fast'"),
        pytest.param(
            "cuda",
            "backend cuda cannot run: torch sees no CUDA device",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA"),
        ),
    ],
)
def test_backend_that_cannot_run_says_why(backend, message):
    with pytest.raises(ValueError, match=message):
        ConvPool(6, C3_TABLE, backend=backend)


def test_without_numba_the_automatic_choice_is_composite(monkeypatch):
    monkeypatch.setattr(packages, "MISSING", {"numba", "triton"})
    x = torch.randn(2, 6, 14, 14)
    assert ConvPool(6, C3_TABLE).version(x) == "composite"
    with pytest.raises(ValueError, match="backend cpu cannot run: numba is not installed"):
        ConvPool(6, C3_TABLE, backend="cpu")
