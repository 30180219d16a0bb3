"""The tuned settings: distortions, schedule, and what must not depend on how a run is cut up."""

from __future__ import annotations

from functools import partial

import lightning
import numpy as np
import pytest
import torch
from helpers import TUNED, StopAfter, fit, trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException

from data import MNISTDataModule, source
from models.distortion import bends_of, distort, draw, maps_of
from models.kernels.distortion import NONE, Distortion
from models.lenet import LeNet5

pytestmark = pytest.mark.filterwarnings("ignore")

tuned = partial(LeNet5, **TUNED)


def numbers(count, distortion=NONE):
    sizes = np.array([count])
    return draw(0, 0, sizes, np.array([0]), sizes, distortion.numbers)


def slow_distort(image, distortion, drawn):
    """One image, pixel by pixel: where does it come from, and what lies between the four there?"""
    height, width = image.shape
    result, bends = torch.zeros_like(image), torch.zeros(height, width, 2)
    if distortion.elastic:
        bends = slow_bends(distortion, drawn, height, width)
    angle, shear = drawn[0] * np.radians(distortion.rotation), distortion.shear * drawn[3]
    turn = torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])
    tall, wide = 1 + distortion.scale * drawn[1], 1 + distortion.scale * drawn[2]
    matrix = turn @ torch.tensor([[wide, shear], [0, tall]])
    middle = torch.tensor([width - 1, height - 1]) / 2
    for row in range(height):
        for column in range(width):
            place = matrix @ (torch.tensor([column, row]) - middle) + middle
            x, y = place + distortion.shift * drawn[4:6] + bends[row, column]
            for r in (int(y.floor()), int(y.floor()) + 1):
                for c in (int(x.floor()), int(x.floor()) + 1):
                    if 0 <= r < height and 0 <= c < width:
                        share = (1 - (y - r).abs()) * (1 - (x - c).abs())
                        result[row, column] += share * image[r, c]
    return result


def slow_bends(distortion, drawn, height, width):
    """For one image: of each wave down times each wave along, how much there is of it."""
    result = torch.zeros(height, width, 2)
    tall, wide = (np.exp(-((4 * np.pi / size * np.arange(5)) ** 2) / 2) for size in (height, width))
    power = np.sqrt((tall**2).sum() * (wide**2).sum())
    for axis, rows in enumerate(drawn[6:].view(2, 5, 5)):
        for i, columns in enumerate(rows):
            for j, number in enumerate(columns):
                for row in range(height):
                    for column in range(width):
                        wave = 3**0.5 / power * tall[i] * wide[j] * float(number)
                        wave *= np.cos(np.pi * i * (row + 0.5) / height) * (2**0.5 if i else 1)
                        wave *= np.cos(np.pi * j * (column + 0.5) / width) * (2**0.5 if j else 1)
                        result[row, column, axis] += distortion.elastic * wave
    return result


@pytest.mark.parametrize(
    "distortion",
    [Distortion(30, 0.3, 0.3, 2), Distortion(elastic=1.5), Distortion(30, 0.3, 0.3, 2, 0.7)],
)
@pytest.mark.parametrize("size", [(9, 9), (8, 11)])
def test_distortion_equals_the_slow_one(size, distortion):
    images, drawn = torch.rand(3, *size), numbers(3, distortion)
    pairs = zip(images, drawn, strict=True)
    expected = torch.stack([slow_distort(image, distortion, one) for image, one in pairs])
    torch.testing.assert_close(distort(images, distortion, drawn), expected, atol=1e-5, rtol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        found = distort(images, distortion, drawn)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert distort(images[:0], distortion, drawn[:0]).shape == (0, *size)


def test_without_limits_nothing_moves():
    images = torch.rand(5, 28, 28)
    torch.testing.assert_close(distort(images, NONE, numbers(5)), images, atol=1e-5, rtol=0)


@pytest.mark.parametrize("limits", [NONE._replace(shift=2), NONE._replace(scale=0.3)])
def test_draws_stay_within_their_limits_and_reach_them(limits):
    maps = maps_of(limits, numbers(10_000), 28, 28)
    shift = maps[:, :, 2] * 14
    scale = maps[:, [0, 1], [0, 1]]
    assert shift.abs().max() <= limits.shift
    assert (scale - 1).abs().max() <= limits.scale + 1e-6
    if limits.shift:
        assert shift.abs().max() > 0.99 * limits.shift
    else:
        assert scale.max() > 1 + 0.99 * limits.scale


def test_elastic_is_how_far_places_move_and_neighbours_move_alike():
    limits = Distortion(elastic=1.5)
    bends = bends_of(limits, numbers(5000, limits), 28, 28)
    assert bends.square().mean().sqrt() == pytest.approx(1.5, rel=0.01)
    across, down = bends.movedim(1, 0).flatten(1)
    assert torch.corrcoef(torch.stack([across, down]))[0, 1].abs() < 0.01
    row = bends[:, 0, 14]

    def alike(distance):
        pairs = torch.stack([row[:, 10], row[:, 10 + distance]])
        return float(torch.corrcoef(pairs)[0, 1])

    # A Gaussian of deviation s makes noise whose correlation falls like one of deviation 1.41 s.
    assert alike(4) == pytest.approx(np.exp(-(4**2) / (4 * 4**2)), abs=0.05)
    assert abs(alike(14)) < 0.2


def data(root, block_size=4, **options):
    return MNISTDataModule(str(root), batch_size=9, block_size=block_size, **options)


@pytest.mark.slow
def test_rates_rise_for_an_epoch_and_fall_to_nothing(tiny_root, tmp_path):
    model, run = fit(tuned, data(tiny_root), tmp_path, max_epochs=4)
    assert run.global_step == 60
    lightning_step = run.fit_loop.epoch_loop.manual_optimization.optim_step_progress.total
    lightning_step.completed = 0
    rates = model.learning_rates(60)
    assert rates[0] == pytest.approx(TUNED["lr"] / 15)
    assert rates.argmax() in (13, 14, 15)
    assert (rates[15:].diff() < 0).all()
    assert 0 < rates[-1] < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("block_size", [1, 7, 1000])
def test_weights_do_not_depend_on_the_block_size(block_size, tiny_root, tmp_path):
    one, _ = fit(tuned, data(tiny_root), tmp_path)
    other, _ = fit(tuned, data(tiny_root, block_size), tmp_path)
    for name, weight in one.state_dict().items():
        assert torch.equal(weight, other.state_dict()[name]), name


@pytest.mark.slow
@pytest.mark.parametrize("iteration", [4, 15, 22])
def test_continued_run_ends_with_the_same_bits(iteration, tiny_root, tmp_path):
    whole, _ = fit(tuned, data(tiny_root), tmp_path)
    path = tmp_path / "stopped.ckpt"
    with pytest.raises(SystemExit):
        fit(tuned, data(tiny_root), tmp_path, callbacks=[StopAfter(iteration, path)])
    lightning.seed_everything(0, verbose=False)
    continued = tuned()
    trainer(tmp_path).fit(continued, data(tiny_root), ckpt_path=path, weights_only=True)
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, continued.state_dict()[name]), name


def test_only_what_is_learnt_from_is_distorted(tiny_root, tmp_path):
    model, run = fit(tuned, data(tiny_root, val_size=30), tmp_path)
    block = next(iter(run.datamodule.train_dataloader()))
    images = block.images[block.order]
    assert torch.equal(model.inputs(images), images[:, None] / 255)
    x, _ = model.batch(block, block.order)
    assert torch.equal(x, model.inputs(images))
    x, _ = model.batch(block, block.order, model.draw(block))
    assert not torch.isclose(x, model.inputs(images)).all()


@pytest.mark.parametrize("elastic", [0, 1])
def test_who_learns_distorts_in_the_same_way(elastic, tiny_root, tmp_path):
    settings = TUNED | {"elastic": elastic}
    compiled, _ = fit(partial(LeNet5, **settings), data(tiny_root), tmp_path, max_epochs=1)
    composite = partial(LeNet5, **settings | {"backend": "composite"})
    eager, _ = fit(composite, data(tiny_root), tmp_path, max_epochs=1)
    assert (compiled.learner, eager.learner) == ("compiled", "eager")
    for name, weight in compiled.state_dict().items():
        torch.testing.assert_close(weight, eager.state_dict()[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("ranks", [2, 3, 50])
def test_an_image_is_distorted_the_same_on_any_rank(ranks):
    totals = np.array([9, 4])
    whole = draw(3, 7, totals, 0 * totals, totals, 9).split(totals.tolist())
    for rank in range(ranks):
        places = [torch.arange(total).tensor_split(ranks)[rank] for total in totals]
        sizes = np.array([len(place) for place in places])
        starts = np.array([rank * (n // ranks) + min(rank, n % ranks) for n in totals.tolist()])
        expected = torch.cat([part[place] for part, place in zip(whole, places, strict=True)])
        assert torch.equal(draw(3, 7, totals, starts, sizes, 9), expected)


def test_standardized_pixels_have_mean_0_and_variance_1(mnist_root):
    images = source.load(mnist_root, train=True)[0]
    x = tuned(standardize=True).eval().inputs(images)
    assert x.mean().item() == pytest.approx(0, abs=1e-3)
    assert x.std().item() == pytest.approx(1, abs=1e-3)


def test_seeds_and_iterations_draw_differently():
    one = np.array([5])
    drawn = [draw(*place, one, 0 * one, one, 6) for place in ((0, 0), (0, 1), (1, 0))]
    assert torch.equal(drawn[0], draw(0, 0, one, 0 * one, one, 6))
    assert len({tuple(numbers.flatten().tolist()) for numbers in drawn}) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"momentum": 1}, "momentum must be from 0 to below 1, got 1"),
        ({"momentum": 0}, "nesterov needs a momentum above 0"),
        ({"weight_decay": -1}, "weight_decay must be 0 or more, and finite, got -1"),
        ({"weight_decay": float("inf")}, "weight_decay must be 0 or more, and finite, got inf"),
        ({"shift": float("inf")}, "shift must be from 0 to 1000, got inf"),
        ({"shift": -1}, "shift must be from 0 to 1000, got -1"),
        ({"rotation": float("nan")}, "rotation must be from 0 to 1000, got nan"),
        ({"elastic": -1}, "elastic must be from 0 to 1000, got -1"),
        ({"elastic": 1e38}, "elastic must be from 0 to 1000, got 1e\\+38"),
        ({"scale": 1}, "scale must be from 0 to below 1, got 1"),
    ],
)
def test_bad_values_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LeNet5(**TUNED | options)


@pytest.mark.parametrize("limit", [{"max_steps": -1, "max_time": "00:00:01:00"}])
def test_schedule_needs_an_end(limit, tiny_root, tmp_path):
    with pytest.raises(MisconfigurationException, match="max_epochs"):
        fit(tuned, data(tiny_root), tmp_path, max_epochs=-1, **limit)


def test_where_no_epoch_is_the_last_the_schedule_ends_with_the_last_iteration(tiny_root, tmp_path):
    model, run = fit(tuned, data(tiny_root), tmp_path, max_epochs=-1, max_steps=20)
    assert run.global_step == 20
    assert model.learning_rates(1).item() == pytest.approx(0, abs=1e-9)
