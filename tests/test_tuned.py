"""The tuned recipe: distortions, schedule, and what must not depend on how a run is cut up."""

from __future__ import annotations

import lightning
import numpy as np
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from test_classifier import StopAfter, fit, trainer

from data import MNISTDataModule, source
from models.layers.affine import Affine, distort, draw
from models.tuned import TunedLeNet5

pytestmark = pytest.mark.filterwarnings("ignore")
STILL = Affine(0, 0, 0, 0)


def slow_distort(image, matrix):
    """One image, pixel by pixel: where does it come from, and what lies between the four there?"""
    size = len(image)
    result = torch.zeros_like(image)
    for row in range(size):
        for column in range(size):
            place = torch.tensor([2 * column + 1, 2 * row + 1]) / size - 1
            x, y = (matrix[:, :2] @ place + matrix[:, 2] + 1) * size / 2 - 0.5
            for r in (int(y.floor()), int(y.floor()) + 1):
                for c in (int(x.floor()), int(x.floor()) + 1):
                    if 0 <= r < size and 0 <= c < size:
                        share = (1 - (y - r).abs()) * (1 - (x - c).abs())
                        result[row, column] += share * image[r, c]
    return result


def test_distortion_equals_the_slow_one():
    images = torch.rand(3, 1, 9, 9)
    maps = draw(Affine(30, 0.3, 0.3, 2), 3, 9, np.random.default_rng(0))
    expected = torch.stack([slow_distort(i[0], m) for i, m in zip(images, maps, strict=True)])
    torch.testing.assert_close(distort(images, maps)[:, 0], expected, atol=1e-5, rtol=1e-5)


def test_without_limits_nothing_moves():
    images = torch.rand(5, 1, 28, 28)
    maps = draw(STILL, 5, 28, np.random.default_rng(0))
    torch.testing.assert_close(distort(images, maps), images, atol=1e-5, rtol=0)


@pytest.mark.parametrize("limits", [STILL._replace(shift=2), STILL._replace(scale=0.3)])
def test_draws_stay_within_their_limits_and_reach_them(limits):
    maps = draw(limits, 10_000, 28, np.random.default_rng(0))
    shift = maps[:, :, 2] * 14
    scale = maps[:, [0, 1], [0, 1]]
    assert shift.abs().max() <= limits.shift
    assert (scale - 1).abs().max() <= limits.scale + 1e-6
    if limits.shift:
        assert shift.abs().max() > 0.99 * limits.shift
    else:
        assert scale.max() > 1 + 0.99 * limits.scale


def data(root, block_size=4, **options):
    return MNISTDataModule(str(root), batch_size=9, block_size=block_size, **options)


def test_rates_rise_for_an_epoch_and_fall_to_nothing(tiny_root, tmp_path):
    model, run = fit(TunedLeNet5, data(tiny_root), tmp_path, max_epochs=4)
    assert run.global_step == 60
    lightning_step = run.fit_loop.epoch_loop.manual_optimization.optim_step_progress.total
    lightning_step.completed = 0
    rates = model.learning_rates(60)
    assert rates[0] == pytest.approx(0.05 / 15)
    assert rates.argmax() in (13, 14, 15)
    assert (rates[15:].diff() < 0).all()
    assert 0 < rates[-1] < 1e-4


@pytest.mark.parametrize("block_size", [1, 7, 1000])
def test_weights_do_not_depend_on_the_block_size(block_size, tiny_root, tmp_path):
    one, _ = fit(TunedLeNet5, data(tiny_root), tmp_path)
    other, _ = fit(TunedLeNet5, data(tiny_root, block_size), tmp_path)
    for name, weight in one.state_dict().items():
        assert torch.equal(weight, other.state_dict()[name]), name


@pytest.mark.parametrize("iteration", [4, 15, 22])
def test_continued_run_ends_with_the_same_bits(iteration, tiny_root, tmp_path):
    whole, _ = fit(TunedLeNet5, data(tiny_root), tmp_path)
    path = tmp_path / "stopped.ckpt"
    with pytest.raises(SystemExit):
        fit(TunedLeNet5, data(tiny_root), tmp_path, callbacks=[StopAfter(iteration, path)])
    lightning.seed_everything(0, verbose=False)
    continued = TunedLeNet5()
    trainer(tmp_path).fit(continued, data(tiny_root), ckpt_path=path, weights_only=True)
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, continued.state_dict()[name]), name


def test_only_what_is_learnt_from_is_distorted(tiny_root, tmp_path):
    model, _ = fit(TunedLeNet5, data(tiny_root), tmp_path)
    images = torch.randint(0, 256, (3, 28, 28), dtype=torch.uint8)
    assert torch.equal(model.eval().inputs(images), images[:, None] / 255)


def test_standardized_pixels_have_mean_0_and_variance_1(mnist_root):
    images = source.load(mnist_root, train=True)[0]
    x = TunedLeNet5(standardize=True).eval().inputs(images)
    assert x.mean().item() == pytest.approx(0, abs=1e-3)
    assert x.std().item() == pytest.approx(1, abs=1e-3)


def test_seeds_draw_differently(tiny_root, tmp_path):
    model, _ = fit(TunedLeNet5, data(tiny_root), tmp_path)
    images = torch.randint(0, 256, (3, 28, 28), dtype=torch.uint8)
    seen = []
    for seed in (0, 0, 1):
        lightning.seed_everything(seed, verbose=False)
        model.train()
        seen.append(model.inputs(images))
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"momentum": 1}, "momentum must be between 0 and 1"),
        ({"weight_decay": -1}, "weight_decay must be 0 or more"),
        ({"shift": -1}, "distortions must be 0 or more"),
        ({"scale": 1}, "scale below 1"),
    ],
)
def test_bad_values_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TunedLeNet5(**options)


def test_schedule_needs_a_last_epoch(tiny_root, tmp_path):
    with pytest.raises(MisconfigurationException, match="max_epochs"):
        fit(TunedLeNet5, data(tiny_root), tmp_path, max_epochs=-1, max_steps=5)
