"""The iteration that is recorded on a GPU: its operators everywhere, the recording where one is."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from helpers import Curve, fit

from data import MNISTDataModule
from models.learners import recorded
from models.learners.recorded import Recorded
from models.lenet import LeNet5

GPU = torch.cuda.is_available()


class Repeat:
    """Stands in for a recording: the same operators, from inputs held in one place."""

    def __init__(self, iteration, x, labels):
        self.size = len(x)
        self.iteration = iteration
        self.calls = 0

    def __call__(self, *inputs):
        assert len(inputs[0]) == self.size
        self.calls += 1
        return self.iteration(*inputs)


class Anywhere(Recorded):
    devices = ("cpu", "cuda")


class Repeated(LeNet5):
    """LeNet-5 that takes the way of a GPU."""

    learners = (Anywhere,)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("c3", ["original", "modern"])
def test_replayed_and_other_iterations_train_the_same_way(
    c3, precision, tiny_root, tmp_path, monkeypatch
):
    """130 images in mini-batches of 9: the last one of an epoch has 4."""
    recordings = []
    monkeypatch.setattr(
        recorded, "Replay", lambda *parts: recordings.append(Repeat(*parts)) or recordings[-1]
    )
    curves, models = [], []
    device = {"accelerator": "auto" if GPU else "cpu", "devices": 1, "precision": precision}
    for kind in (LeNet5, Repeated):
        curve = Curve()
        data = MNISTDataModule(str(tiny_root), batch_size=9, block_size=4)
        options = {**device, "max_epochs": 2, "callbacks": [curve]}
        model, run = fit(partial(kind, c3, backend="composite"), data, tmp_path, **options)
        assert run.global_step == 2 * 15
        models.append(model)
        curves.append(torch.cat(curve.losses).cpu())
    tolerance = 1e-4 if precision == "32-true" else 1e-2
    torch.testing.assert_close(*curves, rtol=tolerance, atol=0)
    assert [model.learner for model in models] == ["eager", "recorded"]
    (recording,) = recordings
    assert recording.calls == 2 * 14


def test_step_is_that_of_plain_descent():
    torch.manual_seed(0)
    weight = torch.randn(3, requires_grad=True)
    x, labels = torch.randn(5, 3), torch.zeros(5, dtype=torch.int64)
    iteration = recorded.Iteration(lambda x, _: (x @ weight).square(), [weight])
    before = weight.detach().clone()
    loss = iteration(x, labels, torch.tensor(0.2), torch.tensor(0.5))
    expected = (x @ before).square().mean()
    gradient = 2 * 0.2 * (x @ before) @ x
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(weight.grad, gradient)
    torch.testing.assert_close(weight.detach(), before - 0.5 * gradient)


@pytest.mark.skipif(not GPU, reason="records on a GPU")
@pytest.mark.parametrize(
    ("backend", "mixed"), [("composite", False), ("cuda", False), ("composite", True)]
)
def test_recording_takes_the_same_steps(backend, mixed):
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        models.append(LeNet5(backend=backend).cuda())
    x, labels = torch.rand(100, 1, 28, 28).cuda(), torch.randint(10, (100,)).cuda()
    autocast = torch.autocast("cuda", torch.bfloat16, enabled=mixed, cache_enabled=False)
    tolerance, of_losses = (3e-2, 3e-2) if mixed else (1e-3, 1e-4)
    with autocast:
        replay = recorded.Replay(recorded.iteration_of(models[0]), x, labels)
        alone = recorded.iteration_of(models[1])
        share, rate = torch.tensor(0.01).cuda(), torch.tensor(0.1).cuda()
        for _ in range(20):
            batch = (torch.rand_like(x), labels, share, rate)
            torch.testing.assert_close(replay(*batch), alone(*batch), rtol=of_losses, atol=0)
    for ours, other in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(ours, other, rtol=tolerance, atol=1e-6)
        torch.testing.assert_close(ours.grad, other.grad, rtol=tolerance, atol=1e-6)
