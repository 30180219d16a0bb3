"""The written-out gradient of LeNet-5 against autograd's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from models import by_hand, nets
from models.lenet import LeNet5


def net_and_batch(c3, batch, seed):
    torch.manual_seed(seed)
    return nets.LeNet5(c3), torch.rand(batch, 1, 28, 28), torch.randint(10, (batch,))


@settings(deadline=None, max_examples=30)
@given(
    c3=st.sampled_from(["original", "modern"]),
    batch=st.sampled_from([1, 2, 7, 8, 9, 100, 101]),
    share=st.sampled_from([1.0, 0.01, 2.5]),
    seed=st.integers(0, 2**32 - 1),
)
def test_losses_and_every_gradient_equal_autograd_in_float64(c3, batch, share, seed):
    net, x, labels = net_and_batch(c3, batch, seed)
    losses = by_hand.cross_entropy(net, x, labels, share)
    exact = nets.LeNet5(c3, "reference").double()
    exact.load_state_dict(net.state_dict())
    expected = F.cross_entropy(exact(x.double()), labels, reduction="none")
    (share * expected.sum()).backward()
    assert (losses - expected).norm() < 1e-5 * expected.norm()
    for (name, parameter), other in zip(net.named_parameters(), exact.parameters(), strict=True):
        assert parameter.grad.is_contiguous(), name
        error = (parameter.grad - other.grad).norm() / other.grad.norm()
        assert error < 5e-5, name


@pytest.mark.parametrize("c3", ["original", "modern"])
@pytest.mark.parametrize("batch", [1, 9, 100])
def test_autograd_sets_the_same_bits(c3, batch):
    net, x, labels = net_and_batch(c3, batch, 0)
    losses = by_hand.cross_entropy(net, x, labels, 0.01)
    gradients = {name: parameter.grad for name, parameter in net.named_parameters()}
    net.zero_grad()
    expected = F.cross_entropy(net(x), labels, reduction="none")
    expected.backward(torch.full_like(expected, 0.01))
    assert torch.equal(losses, expected)
    for name, parameter in net.named_parameters():
        assert torch.equal(gradients[name], parameter.grad), name


def test_losses_stay_finite_for_any_logits():
    net, x, labels = net_and_batch("original", 8, 0)
    with torch.no_grad():
        net.output.bias.copy_(torch.linspace(-1e4, 1e4, 10))
    losses = by_hand.cross_entropy(net, x, labels, 1.0)
    assert losses.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in net.parameters())


def freeze(net):
    net.c5.weight.requires_grad_(False)


def listen(net):
    net.f6.register_forward_hook(lambda *_: None)


def listen_to_a_gradient(net):
    net.f6.weight.register_hook(lambda _: None)


@pytest.mark.parametrize("change", [freeze, listen, listen_to_a_gradient, lambda net: net.double()])
def test_autograd_stays_where_somebody_needs_it(change):
    net = nets.LeNet5()
    assert by_hand.applies(net)
    change(net)
    assert not by_hand.applies(net)


@pytest.mark.parametrize("backend", ["composite", "reference"])
def test_other_versions_run_through_autograd(backend):
    assert not by_hand.applies(nets.LeNet5(backend=backend))


def test_another_loss_is_not_replaced():
    class Smoothed(LeNet5):
        def losses(self, outputs, labels):
            return F.cross_entropy(outputs, labels, reduction="none", label_smoothing=0.1)

    _, x, labels = net_and_batch("original", 4, 0)
    model = Smoothed()
    expected = model.losses(model.net(x), labels)
    losses = model.differentiator(watched=False)(x, labels, 1.0)
    torch.testing.assert_close(losses, expected.detach())
