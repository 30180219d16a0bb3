"""The compiled gradient of LeNet-5 against autograd's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import compiled_gradient, threads_of_torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models import nets
from models.kernels.lanes import LANES
from models.kernels.lenet5.cpu import MiniBatches


def net_and_batch(c3, batch, seed):
    torch.manual_seed(seed)
    return nets.LeNet5(c3), torch.rand(batch, 1, 28, 28), torch.randint(10, (batch,))


@settings(deadline=None, max_examples=30)
@given(
    c3=st.sampled_from(["original", "modern"]),
    batch=st.sampled_from([1, 2, LANES - 1, LANES, LANES + 1, 100, 101]),
    share=st.sampled_from([1.0, 0.01, 2.5]),
    seed=st.integers(0, 2**32 - 1),
)
def test_losses_and_every_gradient_equal_autograd_in_float64(c3, batch, share, seed):
    net, x, labels = net_and_batch(c3, batch, seed)
    losses = compiled_gradient(net)(x, labels, share)
    exact = nets.LeNet5(c3, "reference").double()
    exact.load_state_dict(net.state_dict())
    expected = F.cross_entropy(exact(x.double()), labels, reduction="none")
    (share * expected.sum()).backward()
    assert (losses - expected).norm() < 1e-5 * expected.norm()
    for (name, parameter), other in zip(net.named_parameters(), exact.parameters(), strict=True):
        assert parameter.grad.is_contiguous(), name
        error = (parameter.grad - other.grad).norm() / other.grad.norm()
        assert error < 5e-5, name


@pytest.mark.parametrize("batch", [LANES + 1, 100])
def test_threads_and_repetition_do_not_matter_more_than_rounding(batch):
    net, x, labels = net_and_batch("original", batch, 0)
    differentiate = compiled_gradient(net)
    found = []
    for threads in (1, 1, 2, 2):
        with threads_of_torch(threads):
            losses = differentiate(x, labels, 0.01)
        found.append([losses, *(parameter.grad.clone() for parameter in net.parameters())])
    for one, other in (found[:2], found[2:]):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    for a, b in zip(found[0], found[2], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_it_reads_what_the_optimizer_wrote():
    net, x, labels = net_and_batch("modern", 20, 0)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    differentiate = compiled_gradient(net)
    first = differentiate(x, labels, 1 / 20)
    optimizer.step()
    second = differentiate(x, labels, 1 / 20)
    assert second.sum() < first.sum()
    expected = F.cross_entropy(net(x), labels, reduction="none")
    torch.testing.assert_close(second, expected)


@settings(deadline=None, max_examples=10)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    c3=st.sampled_from(["original", "modern"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_descent_is_one_step_after_the_other(sizes, c3, seed):
    net, _, _ = net_and_batch(c3, 1, seed)
    images = torch.randint(0, 256, (50, 28, 28), dtype=torch.uint8)
    labels = torch.randint(10, (50,))
    order = torch.randint(50, (sum(sizes),))
    shares = 1 / torch.tensor(sizes)
    rates = torch.linspace(0.1, 0.02, len(sizes), dtype=torch.float64)
    exact = nets.LeNet5(c3, "reference").double()
    exact.load_state_dict(net.state_dict())
    batches = MiniBatches(images, labels, order)
    losses = compiled_gradient(net).descend(batches, np.array(sizes), shares, rates)
    optimizer = torch.optim.SGD(exact.parameters(), lr=0.1)
    for k, index in enumerate(order.split(sizes)):
        optimizer.param_groups[0]["lr"] = rates[k].item()
        optimizer.zero_grad()
        x = images[index].unsqueeze(1).double() / 255
        expected = F.cross_entropy(exact(x), labels[index])
        expected.backward()
        optimizer.step()
        assert losses[k].item() == pytest.approx(expected.item(), rel=1e-4)
    for (name, ours), other in zip(net.named_parameters(), exact.parameters(), strict=True):
        assert (ours - other).norm() < 1e-5 * other.norm(), name
        assert (ours.grad - other.grad).norm() < 5e-4 * other.grad.norm(), name


def test_losses_stay_finite_for_any_logits():
    net, x, labels = net_and_batch("original", 8, 0)
    with torch.no_grad():
        net.output.bias.copy_(torch.linspace(-1e4, 1e4, 10))
    losses = compiled_gradient(net)(x, labels, 1.0)
    assert losses.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in net.parameters())
