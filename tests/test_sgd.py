from __future__ import annotations

from functools import partial

import pytest
import torch
from helpers import Curve, descend, fit, linear_problem, relative_error
from hypothesis import given
from hypothesis import strategies as st

from data import FourNineDataModule
from models.kernels.sgd import sequential_sgd
from models.linear import Linear
from models.losses import LOSSES


@pytest.mark.parametrize("loss", LOSSES)
def test_2000_iterations_equal_autograd_in_float64(loss):
    data = linear_problem(1, count=500, iterations=2000)
    expected = descend("reference", data, 0.03, loss, 1 / 255)
    for name, value in descend("cpu", data, 0.03, loss, 1 / 255).items():
        assert relative_error(value, expected[name]) < 1e-9, name


@pytest.mark.parametrize("loss", LOSSES)
def test_first_200_losses_equal_autograd_in_float32(loss):
    data = linear_problem(2, iterations=200, dtype=torch.float32)
    expected = descend("reference", data, 0.03, loss, 1 / 255)["losses"]
    actual = descend("cpu", data, 0.03, loss, 1 / 255)["losses"]
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_every_iteration_on_raw_pixels_equals_autograd(loss):
    # Each from the same weights: on raw pixels the smallest rounding error grows without bound.
    images, labels, order, weight, bias = linear_problem(3, count=500, iterations=500)
    for k in range(order.shape[1]):
        step = images, labels, order[:, k : k + 1], weight, bias
        expected = descend("reference", step, 1e-4, loss, 1.0)
        for name, value in descend("cpu", step, 1e-4, loss, 1.0).items():
            torch.testing.assert_close(value, expected[name], rtol=1e-12, atol=1e-13, msg=name)
        weight, bias = expected["weight"], expected["bias"]


def test_raw_pixels_are_chaotic_for_the_reference_itself():
    images, labels, order, weight, bias = linear_problem(3, count=500, iterations=2000)
    turned = images.flip(1), labels, order, weight.flip(1), bias
    one = descend("reference", (images, labels, order, weight, bias), 1e-4, "logistic", 1.0)
    other = descend("reference", turned, 1e-4, "logistic", 1.0)
    assert relative_error(other["losses"][:, :20], one["losses"][:, :20]) < 1e-9
    assert relative_error(other["weight"].flip(1), one["weight"]) > 1e-9, (
        "the order of a sum mattered"
    )


class Heard(Linear):
    """One that autograd trains, with an optimizer of torch's."""

    def forward(self, x):
        return super().forward(x)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("scale", "precision", "iterations", "tolerance"),
    [
        (1.0, "64-true", 100, 1e-12),
        (1 / 255, "64-true", 300, 1e-12),
        (1 / 255, "32-true", 300, 1e-6),
    ],
)
def test_trainings_are_the_same_whoever_learns(
    scale, precision, iterations, tolerance, mnist_root, tmp_path
):
    """As long as rounding does not grow.

    On raw pixels losses that differ by 1e-13 within 100 iterations do so by 1e-8 within 200, by
    0.01 within 1,000, and by all there is soon after.
    """
    losses = {}
    for model in (partial(Linear, backend="reference"), Linear, Heard):
        curve, data = Curve(), FourNineDataModule(root=str(mnist_root))
        options = {"precision": precision, "max_steps": iterations, "callbacks": [curve]}
        trained, _ = fit(partial(model, scale=scale), data, tmp_path, **options)
        losses[model] = torch.cat(curve.losses)
        assert trained.learner == ("eager" if model is Heard else "sequential")
    expected, *others = losses.values()
    for found in others:
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@given(
    seed=st.integers(0, 1000),
    size=st.integers(1, 70),
    runs=st.integers(1, 4),
    iterations=st.integers(1, 9),
    loss=st.sampled_from(sorted(LOSSES)),
    changing=st.booleans(),
)
def test_any_shape_equals_autograd(seed, size, runs, iterations, loss, changing):
    data = linear_problem(seed, count=5, size=size, runs=runs, iterations=iterations)
    lr = torch.linspace(0.1, 0, iterations) if changing else 0.05
    expected = descend("reference", data, lr, loss, 1 / 255)
    for name, value in descend("cpu", data, lr, loss, 1 / 255).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("bias", [-1e30, -800.0, 800.0, 1e30])
def test_finite_at_any_margin(loss, backend, bias):
    images, labels, order, weight, _ = linear_problem(0, iterations=20, dtype=torch.float32)
    data = images, labels, order, weight, torch.tensor([bias])
    for name, value in descend(backend, data, 1e-4, loss, 1.0).items():
        assert value.isfinite().all(), name


def test_runs_side_by_side_are_the_same_runs():
    images, labels, order, weight, bias = linear_problem(4, runs=5, dtype=torch.float32)
    together = descend("cpu", (images, labels, order, weight, bias), 1e-4, "mse", 1.0)
    for s in range(5):
        alone = descend("cpu", (images, labels, order[s], weight[s], bias[s]), 1e-4, "mse", 1.0)
        for name, value in alone.items():
            assert torch.equal(value, together[name][s]), name


@pytest.mark.parametrize("size", [1, 9, 784])
@pytest.mark.parametrize("block", [1, 2, 7, 64])
def test_blocks_of_any_size_give_the_same_bits(block, size):
    images, labels, order, weight, bias = linear_problem(5, size=size, dtype=torch.float32)
    whole = descend("cpu", (images, labels, order, weight, bias), 0.03, "logistic", 1 / 255)
    losses = []
    for part in order.split(block, dim=1):
        result = descend("cpu", (images, labels, part, weight, bias), 0.03, "logistic", 1 / 255)
        weight, bias = result["weight"], result["bias"]
        losses.append(result["losses"])
    assert torch.equal(torch.cat(losses, dim=1), whole["losses"])
    assert torch.equal(weight, whole["weight"])
    assert torch.equal(bias, whole["bias"])


def test_strided_arguments_are_changed_in_place():
    images, labels, order, weight, bias = linear_problem(6, runs=2)
    expected = descend("cpu", (images, labels, order, weight, bias), 1e-4, "mse", 1.0)
    strided = weight.t().contiguous().t()
    sequential_sgd(images, labels, order, strided, bias, 1e-4, LOSSES["mse"])
    assert torch.equal(strided, expected["weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"order": torch.tensor([60])}, "expected order from 0 to 59, got 60"),
        ({"order": torch.tensor([-1])}, "expected order from 0 to 59, got -1"),
        ({"weight": torch.zeros(783).double()}, r"expected weight of shape \(1, 784\), got"),
        ({"bias": torch.zeros(2).double()}, r"expected bias of shape \(1\), got \(2\)"),
        ({"labels": torch.ones(59).long()}, r"expected labels of shape \(60\), got \(59\)"),
        ({"backend": "cuda"}, "backend cuda cannot run: the model is on cpu"),
        ({"backend": "fast"}, "must be auto, reference, cpu or cuda, got 'fast'"),
    ],
)
def test_bad_arguments_are_named(change, message):
    images, labels, order, weight, bias = linear_problem(0)
    arguments = {
        "images": images,
        "labels": labels,
        "order": order[0],
        "weight": weight[0],
        "bias": bias[0],
        "lr": 0.1,
        "loss": LOSSES["mse"],
    }
    with pytest.raises(ValueError, match=message):
        sequential_sgd(**arguments | change)
