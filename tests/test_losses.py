from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.losses import LOSSES


def pairs(bound):
    return st.tuples(st.floats(-bound, bound), st.sampled_from([-1, 1]))


def tensors(pair):
    z, y = pair
    return torch.tensor([z], dtype=torch.float64), torch.tensor([y])


def sigmoid(z):
    return 1 / (1 + torch.exp(-z))


@given(pairs(30))
def test_logistic_is_its_definition(pair):
    z, y = tensors(pair)
    torch.testing.assert_close(LOSSES["logistic"](z, y), -torch.log(sigmoid(y * z)))


@given(pairs(30))
def test_mse_is_the_sum_of_four_squares(pair):
    z, y = tensors(pair)
    s = sigmoid
    four = (1 - y) / 2 * ((1 - s(-z)) ** 2 + s(z) ** 2)
    four = four + (1 + y) / 2 * (s(-z) ** 2 + (1 - s(z)) ** 2)
    torch.testing.assert_close(LOSSES["mse"](z, y), four)


@given(pairs(30))
def test_the_misprint_lacks_one_square(pair):
    z, y = tensors(pair)
    s = sigmoid
    printed = (1 - y) / 2 * ((1 - s(-z)) ** 2 + s(z))
    printed = printed + (1 + y) / 2 * (s(-z) ** 2 + (1 - s(z)) ** 2)
    torch.testing.assert_close(LOSSES["mse-as-printed"](z, y), printed)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("y", [-1, 1])
@pytest.mark.parametrize("z", [-1e30, -800.0, -40.0, 0.0, 40.0, 800.0, 1e30])
def test_value_and_gradient_are_finite_at_any_margin(name, y, z):
    margin = torch.tensor([z], requires_grad=True)
    loss = LOSSES[name](margin, torch.tensor([y]))
    loss.sum().backward()
    assert loss.isfinite().all()
    assert margin.grad.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
def test_gradcheck(name):
    z = torch.linspace(-4, 4, 9, dtype=torch.float64, requires_grad=True)
    y = torch.tensor([1, -1, 1, -1, 1, -1, 1, -1, 1])
    assert torch.autograd.gradcheck(lambda z: LOSSES[name](z, y), z)
