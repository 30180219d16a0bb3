"""What does not hold as the document prints it, and the right value of each."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from models.nets import LeNet5
from project.bench.published import SixteenConvolutions
from project.reproduce import (
    bottleneck,
    differences,
    jacobian_errata,
    lenet_errata,
    lenet_rows,
    theory,
    windows,
)
from project.reproduce.bottleneck import PRINTED_BOTTLENECK, PRINTED_DIRECT
from project.reproduce.jacobian_errata import NARROWING, SQUARE, draw, finite_differences


def test_printed_difference_kernels_are_right_as_they_are_and_not_flipped():
    x = torch.randn(3, 1, 7, 6, dtype=torch.float64)
    kernels = differences.PRINTED.double()
    assert differences.printed_errors(x, kernels) == [0, 0]
    assert min(differences.printed_errors(x, kernels.flip(1, 2))) > 1


def test_direct_convolution_is_printed_without_a_factor_5():
    (counted,) = bottleneck.by_torch([nn.Conv2d(192, 32, 5, padding=2)])
    assert counted == 28 * 28 * 32 * 5 * 5 * 192 == 120_422_400
    assert 5 * PRINTED_DIRECT[0] == counted


def test_first_product_of_the_bottleneck_lacks_the_16_and_the_second_is_right():
    counted = bottleneck.by_torch([nn.Conv2d(192, 16, 1), nn.Conv2d(16, 32, 5, padding=2)])
    assert [16 * PRINTED_BOTTLENECK[0], PRINTED_BOTTLENECK[1]] == counted
    assert sum(counted) == 12_443_648
    # Without a 16 in the second product alone the total would be another.
    assert counted[0] + counted[1] // 16 == 3_035_648


def test_bottleneck_is_called_10_times_smaller_and_is_9_68_times():
    assert round(120_422_400 / 12_443_648, 2) == 9.68


@pytest.mark.parametrize(("size", "outputs"), [(4, 2), (12, 3), (28, 14)])
def test_windows_of_pooling_step_and_the_printed_ones_slide(size, outputs):
    x = torch.randn(size, size)
    pooled = F.max_pool2d(x[None], size // outputs)[0]
    right, printed = windows.stepping(size, outputs), windows.printed(size, outputs)
    assert torch.equal(windows.maxima(x, right), pooled)
    assert not torch.equal(windows.maxima(x, printed), pooled)
    assert torch.equal(windows.readers(size, right), torch.ones(size, size, dtype=torch.long))
    # The last row of the last window, of all that slide by one pixel.
    assert printed[-1].stop == outputs + size // outputs - 1 < size


def test_activation_of_a_window_is_no_number_without_the_max():
    window = torch.randn(2, 3)
    assert torch.tanh(window).shape != torch.tanh(window.max()).shape == ()
    assert torch.equal(torch.tanh(window).max(), torch.tanh(window.max()))


def close(actual, expected):
    torch.testing.assert_close(actual, expected, atol=1e-8, rtol=0)


def differ(actual, expected):
    assert (actual - expected).abs().max() > 1e-3


def test_slope_is_taken_at_the_input_of_the_layer():
    layer = draw(SQUARE, seed=0)
    for found, factor in (
        (layer.by_bias(), torch.eye(4).double()),
        (layer.by_input(), layer.weight),
    ):
        close(torch.diag(layer.slopes(layer.x)) @ factor, found)
        differ(torch.diag(layer.slopes(layer.y)) @ factor, found)


def test_weight_of_a_layer_has_no_product_with_its_output():
    layer = draw(NARROWING, seed=0)
    assert jacobian_errata.multiplies(layer.weight, layer.x)
    assert not jacobian_errata.multiplies(layer.weight, layer.y)


def test_last_row_has_the_slope_of_the_last_unit():
    layer = draw(SQUARE, seed=0)
    slopes, last = layer.slopes(layer.x), layer.by_input()[-1]
    close(slopes[-1] * layer.weight[-1], last)
    differ(slopes[0] * layer.weight[-1], last)


def test_derivative_by_the_last_layer_is_its_weight_and_by_its_weight_its_input_transposed():
    (weight, bias, x), y = draw((1, 4), seed=0), torch.zeros(4).double()
    assert finite_differences(lambda y: weight @ y + bias, y).shape == (1, 4)
    close(finite_differences(lambda y: weight @ y + bias, y), weight)
    close(finite_differences(lambda a: a.view(1, 4) @ x + bias, weight[0]), x[None])


@pytest.mark.parametrize("widths", [(5, 4, 3, 1), (4, 4, 4, 1)])
def test_part_b_is_right_as_printed_and_contradicts_part_a(widths):
    layers = [draw((n, m), seed) for seed, (m, n) in enumerate(itertools.pairwise(widths))]
    weights, biases = [layer.weight for layer in layers], [layer.bias for layer in layers]
    net = theory.perceptron(weights, biases, layers[0].x, "sigmoid", last="identity")

    def output(a):
        changed = [weights[0], a.view_as(weights[1]), weights[2]]
        return theory.perceptron(changed, biases, net.y[0], "sigmoid", last="identity").output

    found = finite_differences(output, weights[1].flatten()).view_as(weights[1])
    layer = jacobian_errata.Layer(weights[1], biases[1], net.y[1])
    rest = weights[2].T @ layer.x[None]  # (dy_L/dy_l)^T y_{l-1}^T
    close(torch.diag(layer.slopes(layer.x)) @ rest, found)
    if jacobian_errata.multiplies(layer.weight, layer.y):
        differ(torch.diag(layer.slopes(layer.y)) @ rest, found)


def test_original_is_called_10_times_as_slow_and_was_6_9_times():
    original, modern = 18 * 60 + 41, 2 * 60 + 42
    assert {"original": original, "modern": modern} == lenet_rows.SECONDS
    assert round(original / modern, 1) == 6.9
    assert lenet_errata.times().right == "6.9 times"


@pytest.mark.parametrize(
    ("c3", "layer", "count"),
    [("original", SixteenConvolutions(), 150_000), ("modern", nn.Conv2d(6, 16, 5), 240_000)],
    ids=["original", "modern"],
)
def test_original_c3_is_the_simpler_one(c3, layer, count):
    with FlopCounterMode(display=False) as counter:
        layer(torch.zeros(1, 6, 14, 14))
    assert 2 * lenet_errata.c3_multiplications(c3) == counter.get_total_flops() == 2 * count


def test_counts_called_those_of_the_nets_are_those_of_their_c3():
    for c3, own, of_all in (("original", 1_516, 60_806), ("modern", 2_416, 61_706)):
        counts = lenet_rows.parameters(c3)
        assert (counts["c3"], sum(counts.values())) == (own, of_all)
        assert sum(p.numel() for p in LeNet5(c3).parameters()) == of_all
    assert 6 * (5 * 5 * 3 + 1) + 9 * (5 * 5 * 4 + 1) + 1 * (5 * 5 * 6 + 1) == 1_516
    assert 2_416 - 1_516 == 900
