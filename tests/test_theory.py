from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.autograd.functional import jacobian
from torch.utils.flop_counter import FlopCounterMode

from project.reproduce import theory
from project.reproduce.theory import ACTIVATIONS, perceptron


def random_net(widths, seed):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    pairs = list(zip(widths[1:], widths[:-1], strict=True))
    return [draw(n, m) / m**0.5 for n, m in pairs], [draw(n) for n, _ in pairs], draw(widths[0])


def replaced(values, index, value):
    return [*values[:index], value, *values[index + 1 :]]


networks = st.tuples(st.lists(st.integers(1, 7), min_size=2, max_size=7), st.integers(0, 2**31))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@settings(max_examples=15, deadline=None)
@given(networks)
def test_derivatives_equal_autograd(activation, network):
    weights, biases, x = random_net(*network)
    net = perceptron(weights, biases, x, activation)

    def close(actual, expected):
        assert actual.shape == expected.shape
        assert (actual - expected).abs().max() < 1e-12

    for i in range(len(weights)):
        layer = i + 1

        def one_layer(y, b, i=i):
            return perceptron(weights[i : i + 1], [b], y, activation).output

        def by_weight(a, i=i):
            return perceptron(replaced(weights, i, a), biases, x, activation).output

        def by_bias(b, i=i):
            return perceptron(weights, replaced(biases, i, b), x, activation).output

        by_input, by_own_bias = jacobian(one_layer, (net.y[i], biases[i]))
        close(theory.layer_by_input(net, layer), by_input)
        close(theory.layer_by_bias(net, layer), by_own_bias)
        close(theory.output_by_weight(net, layer), jacobian(by_weight, weights[i]))
        close(theory.output_by_bias(net, layer), jacobian(by_bias, biases[i]))


def square_net():
    """Layers of the same width, so that what is misprinted can be computed at all."""
    weights, biases, x = random_net([4, 4, 4, 4], 1)
    return weights, biases, perceptron(weights, biases, x, "sigmoid")


def by_input(weight, bias, y):
    """dy_l/dy_{l-1} of a sigmoid layer, as autograd has it."""
    return jacobian(lambda y: torch.sigmoid(weight @ y + bias), y)


def test_slope_belongs_to_the_input_of_its_layer():
    weights, biases, net = square_net()
    for i, (a, b) in enumerate(zip(weights, biases, strict=True)):
        expected = by_input(a, b, net.y[i])
        slopes = [ACTIVATIONS["sigmoid"].derivative(a @ y + b) for y in net.y]
        torch.testing.assert_close(slopes[i][:, None] * a, expected)
        assert (slopes[i + 1][:, None] * a - expected).abs().max() > 0.01


def test_every_row_has_the_slope_of_its_own_unit():
    weights, biases, net = square_net()
    rows = by_input(weights[0], biases[0], net.y[0])
    for row, slope, weight in zip(rows, net.slopes[0], weights[0], strict=True):
        torch.testing.assert_close(row, slope * weight)
    # The document prints that of the first unit in the last row.
    assert (rows[-1] - net.slopes[0][0] * weights[0][-1]).abs().max() > 0.01


def test_document_has_a_scalar_output_without_an_activation():
    weights, biases, x = random_net([4, 3, 1], 2)
    net = perceptron(weights, biases, x, "sigmoid", last="identity")
    hidden = torch.sigmoid(weights[0] @ x + biases[0])
    torch.testing.assert_close(net.output, weights[1] @ hidden + biases[1])
    torch.testing.assert_close(theory.layer_by_input(net, 2), weights[1])
    torch.testing.assert_close(theory.output_by_weight(net, 2)[0], hidden[None])


def test_derivative_by_a_weight_is_an_outer_product():
    _, _, net = square_net()
    rows, by_bias = theory.output_by_weight(net, 3), theory.output_by_bias(net, 3)
    for row, slopes in zip(rows, by_bias, strict=True):
        assert torch.equal(row, slopes[:, None] @ net.y[2][None, :])


def test_derivative_by_the_output_itself_is_the_identity():
    net = perceptron(*random_net([3, 4, 2], 0))
    assert torch.equal(theory.output_by_layer(net, 2), torch.eye(2, dtype=torch.float64))


@pytest.mark.parametrize("layer", [0, 3])
def test_layers_count_from_one(layer):
    net = perceptron(*random_net([3, 4, 2], 0))
    with pytest.raises(ValueError, match=f"layer must be 1 to 2, got {layer}"):
        theory.output_by_weight(net, layer)


def flops(layers, height, width):
    chain = nn.Sequential(*layers)
    with FlopCounterMode(display=False) as counter:
        chain(torch.zeros(1, layers[0].in_channels, height, width))
    return counter.get_total_flops()


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 4), st.sampled_from([1, 3]), st.booleans()), min_size=1),
    st.integers(1, 2),
)
def test_multiplications_are_half_of_torchs_flops(specification, stride):
    layers, channels = [], 2
    for outputs, size, depthwise in specification[:4]:
        groups = channels if depthwise else 1
        wanted = outputs * groups
        layers.append(nn.Conv2d(channels, wanted, size, stride, size // 2, groups=groups))
        channels = wanted
    counts = theory.multiplications(layers, 13, 11)
    assert 2 * sum(counts) == flops(layers, 13, 11)


def test_bottleneck_of_the_document():
    direct = [nn.Conv2d(192, 32, 5, padding=2)]
    bottleneck = [nn.Conv2d(192, 16, 1), nn.Conv2d(16, 32, 5, padding=2)]
    assert theory.multiplications(direct, 28, 28) == [120_422_400]
    assert theory.multiplications(bottleneck, 28, 28) == [2_408_448, 10_035_200]
    assert 2_408_448 + 10_035_200 == 12_443_648
