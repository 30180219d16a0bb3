"""The network of 1998: its counts, its layers and its loss, against the paper and slow loops."""

from __future__ import annotations

import math

import pytest
import torch
from helpers import fit

from data import MNISTDataModule
from models import nets
from models.bitmaps import bitmaps
from models.kernels.conv_pool import reference
from models.layers.subsampling import Subsampling
from models.lenet1998 import LeNet1998
from models.schedules import PASSES

PARAMETERS = {"c1": 156, "s2": 12, "c3": 1516, "s4": 32, "c5": 48_120, "f6": 10_164}
CONNECTIONS = {
    "c1": 122_304,
    "s2": 5_880,
    "c3": 151_600,
    "s4": 2_000,
    "c5": 48_120,
    "f6": 10_164,
    "output": 840,
}


def test_counts_are_those_of_the_paper():
    net = nets.LeNet1998()
    assert {
        name: sum(parameter.numel() for parameter in layer.parameters())
        for name, layer in net.named_children()
    } == PARAMETERS
    assert sum(parameter.numel() for parameter in net.parameters()) == 60_000
    assert nets.connection_counts(net) == CONNECTIONS
    assert sum(CONNECTIONS.values()) == 340_908


def test_squash_keeps_plus_and_minus_one():
    ones = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(nets.squash(ones), ones, atol=1e-5, rtol=0)


def test_subsampling_equals_the_sums_written_out():
    layer, x = Subsampling(3).double(), torch.randn(2, 3, 4, 6, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.normal_()
        layer.bias.normal_()
    result = layer(x)
    for b, m, row, column in torch.cartesian_prod(*map(torch.arange, (2, 3, 2, 3))):
        four = x[b, m, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].sum()
        expected = layer.weight[m] * four + layer.bias[m]
        torch.testing.assert_close(result[b, m, row, column], expected)
    assert torch.autograd.gradcheck(layer, x.requires_grad_())


def test_network_equals_the_one_written_layer_by_layer():
    net, x = nets.LeNet1998().double(), torch.randn(2, 1, 32, 32, dtype=torch.float64)
    maps = x
    for convolution, pool in ((net.c1, net.s2), (net.c3, net.s4)):
        maps = nets.squash(reference.partial_conv2d(maps, *convolution.arguments()))
        maps = nets.squash(pool(maps))
    outputs = maps.flatten(1)
    for layer in (net.c5, net.f6):
        outputs = nets.squash(outputs @ layer.weight.T + layer.bias)
    for row, penalties in zip(outputs, net(x), strict=True):
        for code, penalty in zip(net.codes, penalties, strict=True):
            torch.testing.assert_close(((row - code) ** 2).sum(), penalty)


def test_initial_values_lie_within_their_bounds():
    net = nets.LeNet1998()
    for layer, fan_in in ((net.c1, 25), (net.s2, 4), (net.s4, 4), (net.c5, 400), (net.f6, 120)):
        for parameter in layer.parameters():
            assert parameter.abs().max() <= 2.4 / fan_in
    for output, row in zip(net.c3.connections[:, 0], net.c3.weight, strict=True):
        assert row.abs().max() <= 2.4 / int(net.c3.fan_in()[output])
    assert net.c3.fan_in().tolist() == [75] * 6 + [100] * 9 + [150]


def test_bitmaps_are_ten_different_drawings_in_ink_and_paper():
    codes = bitmaps()
    assert codes.shape == (10, 7 * 12)
    assert set(codes.flatten().tolist()) == {-1.0, 1.0}
    apart = torch.cdist(codes, codes).square() / 4  # pixels that differ
    assert apart[~torch.eye(10, dtype=bool)].min() >= 9


@pytest.mark.parametrize("loss", ["map", "mse"])
def test_losses_equal_the_paper_s_equations(loss):
    model = LeNet1998(loss=loss, rubbish=0.3)
    penalties, labels = 5 * torch.rand(6, 10), torch.randint(10, (6,))
    for y, label, got in zip(
        penalties.tolist(), labels.tolist(), model.losses(penalties, labels), strict=True
    ):
        expected = y[label]
        if loss == "map":
            expected += math.log(math.exp(-0.3) + sum(math.exp(-other) for other in y))
        assert float(got) == pytest.approx(expected, rel=1e-5)


def test_losses_are_finite_far_from_every_bitmap():
    penalties = torch.full((2, 10), 1e4, requires_grad=True)
    LeNet1998().losses(penalties, torch.tensor([0, 9])).sum().backward()
    assert penalties.grad.isfinite().all()


def test_least_penalty_is_the_answer():
    penalties = torch.tensor([[3.0, 0.5, 9.0] + [9.0] * 7])
    model = LeNet1998()
    assert model.predicted_and_true(penalties, torch.tensor([1]))[0].item() == 1
    probabilities = model.probabilities(penalties)
    assert probabilities.argmax() == 1
    assert probabilities.sum() == pytest.approx(1)


def test_inputs_are_framed_in_paper():
    images = torch.tensor([0, 255], dtype=torch.uint8)[:, None, None].expand(2, 28, 28)
    x = LeNet1998().inputs(images)
    assert x.shape == (2, 1, 32, 32)
    torch.testing.assert_close(x[0], torch.full((1, 32, 32), -0.1))
    torch.testing.assert_close(x[1, 0, 2:-2, 2:-2], torch.full((28, 28), 1.175))
    assert (x[1, 0, :2] == -0.1).all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("block_size", [7, 1000])
def test_schedule_follows_the_passes_whatever_the_block_size(block_size, tiny_root, tmp_path):
    def run(size):
        data = MNISTDataModule(str(tiny_root), batch_size=9, block_size=size)
        return fit(LeNet1998, data, tmp_path, max_epochs=4)

    one, trained = run(1)
    other, _ = run(block_size)
    for name, weight in one.state_dict().items():
        assert torch.equal(weight, other.state_dict()[name]), name
    trained.fit_loop.epoch_loop.manual_optimization.optim_step_progress.total.completed = 0
    rates = one.learning_rates(21 * 15).view(21, 15)
    assert (rates == rates[:, :1]).all()
    assert rates[:20, 0].tolist() == pytest.approx([0.001 * part for part in PASSES])
    assert rates[20, 0] == rates[19, 0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"momentum": 1}, "momentum must be from 0"),
        ({"rubbish": 0}, "rubbish must be above 0, and finite, got 0"),
        ({"rubbish": math.inf}, "rubbish must be above 0, and finite, got inf"),
    ],
)
def test_bad_values_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LeNet1998(**options)
