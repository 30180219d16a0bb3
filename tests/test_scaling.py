"""Images of other sizes than MNIST's."""

from __future__ import annotations

import pytest
import torch

from data import scaling


def test_one_that_fits_stays_as_it_is():
    images = torch.randint(0, 256, (3, 28, 28), dtype=torch.uint8)
    assert scaling.scaled(images) is images


@pytest.mark.parametrize(
    ("size", "rows", "columns"),
    [
        ((14, 14), (0, 28), (0, 28)),
        ((20, 10), (0, 28), (7, 21)),
        ((30, 120), (10, 17), (0, 28)),
        ((200, 90), (0, 28), (7, 20)),
    ],
    ids=str,
)
def test_proportions_stay_and_the_middle_is_the_middle(size, rows, columns):
    image = torch.zeros(1, *size, dtype=torch.uint8)
    image[:, 1:-1, 1:-1] = 200
    (found,) = scaling.scaled(image)
    assert found.shape == (28, 28)
    outside = found.clone()
    outside[slice(*rows), slice(*columns)] = 0
    assert not outside.any()
    assert found[slice(*rows), slice(*columns)].float().mean() > 100


def test_what_an_image_does_not_fill_is_of_its_border():
    assert (scaling.scaled(torch.full((2, 1, 200), 9, dtype=torch.uint8)) == 9).all()
    assert scaling.scaled(torch.ones(1, 1, 1, dtype=torch.uint8)).shape == (1, 28, 28)


def test_pixels_are_means_of_those_they_stand_for():
    image = torch.zeros(1, 56, 56, dtype=torch.uint8)
    image[0, 20:36, 20:36] = 240
    (found,) = scaling.scaled(image)
    assert found[14, 14] == 240
    assert found[0, 0] == 0
    assert abs(float(found.float().sum()) * 4 - 240 * 256) < 240 * 10


def test_what_is_scaled_does_not_depend_on_its_neighbours(monkeypatch):
    images = torch.randint(0, 256, (7, 33, 40), dtype=torch.uint8)
    whole = scaling.scaled(images)
    monkeypatch.setattr(scaling, "MOST_PIXELS", 3 * 33 * 40)
    assert torch.equal(scaling.scaled(images), whole)
    assert torch.equal(scaling.scaled(images[2:3]), whole[2:3])
