"""The compiled gradient of the net of 1998 against autograd's."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from helpers import threads_of_torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_conv_pool_twice import tables
from torch import nn

from models.kernels.conv_pool.cpu import Convolution
from models.kernels.lanes import LANES
from models.kernels.lenet5.cpu import LeNet5Gradient, MiniBatches
from models.layers.conv_pool import PartialConv
from models.layers.subsampling import Subsampling
from models.lenet1998 import LeNet1998

LOSSES = st.sampled_from(["map", "mse"])


def model_of(loss="map", table=None, rubbish=0.1, seed=0):
    """The model of 1998, or one whose C3 is connected by another table."""
    torch.manual_seed(seed)
    model = LeNet1998(loss, rubbish)
    if table is not None:
        net = model.net
        net.c3, net.s4 = PartialConv(6, table), Subsampling(len(table))
        net.c5 = nn.Linear(25 * len(table), 120)
        net.reset_parameters()
        net.c5.weight.data.mul_(4)  # drawn for 400 inputs
    return model


def digits(count):
    return torch.randint(0, 256, (count, 28, 28), dtype=torch.uint8), torch.randint(10, (count,))


def compiled(model, **changes):
    """The gradient, and where it goes."""
    blocks = (Convolution(*layer.arguments()) for layer in (model.net.c1, model.net.c3))
    design = model.design._replace(**changes)
    compute = LeNet5Gradient(*blocks, [*model.net.parameters()], design)
    compute._row.fill_(77)  # whatever is not written is seen
    return compute, compute._gradients


def exact_of(model):
    return deepcopy(model).double()


def losses_of(model, images, labels):
    return model.losses(model.net(model.inputs(images)), labels)


@settings(deadline=None, max_examples=30)
@given(
    loss=LOSSES,
    table=st.none() | tables(6),
    batch=st.integers(0, 40),
    share=st.sampled_from([1.0, 0.05, 2.5]),
    rubbish=st.sampled_from([0.1, 5.0, 60.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_losses_and_every_gradient_equal_autograd_in_float64(
    loss, table, batch, share, rubbish, seed
):
    model = model_of(loss, table, rubbish, seed)
    images, labels = digits(batch)
    compute, gradients = compiled(model)
    losses = compute(model.inputs(images), labels, share)
    exact = exact_of(model)
    expected = losses_of(exact, images, labels)
    (share * expected.sum()).backward()
    assert (losses - expected).norm() <= 1e-5 * expected.norm()
    for (name, parameter), ours in zip(exact.net.named_parameters(), gradients, strict=True):
        assert (ours - parameter.grad).norm() <= 5e-5 * parameter.grad.norm(), name


@settings(deadline=None, max_examples=10)
@given(sizes=st.lists(st.integers(1, 30), min_size=1, max_size=5), loss=LOSSES)
def test_descent_is_one_step_after_the_other(sizes, loss):
    model = model_of(loss)
    images, labels = digits(50)
    order = torch.randint(50, (sum(sizes),))
    shares, rates = 1 / torch.tensor(sizes), torch.linspace(1e-3, 2e-4, len(sizes))
    exact = exact_of(model)
    compute, gradients = compiled(model)
    losses = compute.descend(MiniBatches(images, labels, order), np.array(sizes), shares, rates)
    optimizer = torch.optim.SGD(exact.net.parameters(), lr=0.1)
    for k, index in enumerate(order.split(sizes)):
        optimizer.param_groups[0]["lr"] = rates[k].item()
        optimizer.zero_grad()
        expected = losses_of(exact, images[index], labels[index]).mean()
        expected.backward()
        optimizer.step()
        assert losses[k].item() == pytest.approx(expected.item(), rel=1e-4)
    parts = zip(model.net.named_parameters(), exact.net.parameters(), gradients, strict=True)
    for (name, ours), other, gradient in parts:
        assert (ours - other).norm() < 1e-5 * other.norm(), name
        assert (gradient - other.grad).norm() < 5e-4 * other.grad.norm(), name


@pytest.mark.parametrize("batch", [LANES + 1, 20])
def test_threads_and_repetition_do_not_matter_more_than_rounding(batch):
    model = model_of()
    images, labels = digits(batch)
    compute, gradients = compiled(model)
    found = []
    for threads in (1, 1, 2, 2):
        with threads_of_torch(threads):
            losses = compute(model.inputs(images), labels, 0.05)
        found.append([losses, *(gradient.clone() for gradient in gradients)])
    for one, other in (found[:2], found[2:]):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    for a, b in zip(found[0], found[2], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_blocks_of_other_sizes_give_the_same_bits():
    images, labels = digits(40)
    order, sizes = torch.arange(40), np.full(4, 10)
    shares, rates = torch.full((4,), 0.1), torch.full((4,), 1e-3)
    whole, parts = model_of(), model_of()
    compiled(whole)[0].descend(MiniBatches(images, labels, order), sizes, shares, rates)
    for some in (slice(0, 1), slice(1, 4)):
        own = order[10 * some.start : 10 * some.stop]
        compiled(parts)[0].descend(
            MiniBatches(images, labels, own), sizes[some], shares[some], rates[some]
        )
    for one, other in zip(whole.net.parameters(), parts.net.parameters(), strict=True):
        assert torch.equal(one, other)


def test_paper_lies_around_the_bytes_after_other_inputs_too():
    model = model_of()
    images, labels = digits(9)
    compute, gradients = compiled(model)
    batch = MiniBatches(images, labels, torch.arange(9))
    step = np.array([9]), torch.ones(1), torch.zeros(1)
    before = compute.descend(batch, *step), [part.clone() for part in gradients]
    compute(torch.randn(9, 1, 32, 32), labels, 1.0)
    after = compute.descend(batch, *step), gradients
    assert torch.equal(before[0], after[0])
    assert all(torch.equal(a, b) for a, b in zip(before[1], after[1], strict=True))


@pytest.mark.parametrize("loss", ["map", "mse"])
def test_losses_and_gradients_stay_finite_for_any_weights(loss):
    model = model_of(loss)
    with torch.no_grad():
        for parameter in model.net.parameters():
            parameter.mul_(1e4)
    images, labels = digits(8)
    compute, gradients = compiled(model)
    assert compute(model.inputs(images), labels, 1.0).isfinite().all()
    assert all(gradient.isfinite().all() for gradient in gradients)


REFUSED = {
    "codes of another type": (lambda codes: {"codes": codes.double()}, "codes of float32"),
    "narrow codes": (lambda codes: {"codes": codes[:, :-1]}, r"codes of shape \(K, 84\)"),
    "few codes": (lambda codes: {"codes": codes[:9]}, "10 numbers or more, got 9"),
    "no codes": (lambda _: {"codes": None}, "expected 10 parameters, got 12"),
    "codes elsewhere": (lambda codes: {"codes": codes.to("meta")}, "codes on cpu, got meta"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_designs_that_do_not_fit_are_refused(name):
    model = model_of()
    change, message = REFUSED[name]
    with pytest.raises((TypeError, ValueError), match=message):
        compiled(model, **change(model.net.codes))


@pytest.mark.parametrize("number", range(12))
def test_parameters_and_gradients_that_do_not_fit_are_refused(number):
    model = model_of()
    name, parameter = [*model.net.named_parameters()][number]
    parameter.data = parameter.data.repeat(2, *[1] * (parameter.dim() - 1))
    with pytest.raises(ValueError, match="expected"):
        compiled(model)
    parameter.data = parameter.data.double()[: len(parameter) // 2]
    with pytest.raises(TypeError, match=f"expected ({name}|weight|bias) of float32, got float64"):
        compiled(model)


def test_padding_inside_the_paper_and_another_loss_are_refused():
    model = model_of()
    model.net.c1.padding = 1
    with pytest.raises(ValueError, match="expected no padding inside a margin of 2, got 1"):
        compiled(model)
    with pytest.raises(ValueError, match="expected loss of map or mse, got hinge"):
        compiled(LeNet1998("hinge"))


def test_images_without_their_margin_are_refused():
    compute, _ = compiled(model_of())
    with pytest.raises(ValueError, match=r"expected x of shape \(B, 1, 32, 32\)"):
        compute(torch.zeros(2, 1, 28, 28), torch.zeros(2).long(), 1.0)
