"""Digits on photographs and scans: found, freed of what is not written, or named as unsure."""

from __future__ import annotations

import marks
import numpy as np
import photographed
import pytest
import torch
from PIL import Image

from data import source
from data.images import reading
from data.images.arrays import components, grown, run_lengths
from data.images.centre import like_mnist


def likeness(pixels, ink):
    """The correlation with what MNIST would make of the ink alone, moved a pixel at most."""
    expected = like_mnist(ink).double().flatten()
    shifts = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    moved = [pixels.double().roll(by, (0, 1)).flatten() for by in shifts]
    return max(float(torch.corrcoef(torch.stack([one, expected]))[0, 1]) for one in moved)


def shot(style, draw, rng, folder, *more, several=False):
    """What is read of one picture."""
    path = photographed.save(folder / style, photographed.STYLES[style](rng, draw, *more))
    content = reading.read([path], several=several)
    assert content.refused == []
    return content.digits


def draws(rng, label, mnist_root):
    """A digit of MNIST and one drawn with a pen."""
    pixels, labels = source.load(mnist_root, train=False)
    n = int(rng.choice(np.flatnonzero(labels.numpy() == label)))
    return [marks.enlarged(pixels[n].numpy(), rng), marks.penned(marks.DIGITS[label], rng)]


ONE_DIGIT = [style.__name__ for style in photographed.ONE_DIGIT]


@pytest.mark.parametrize("style", ONE_DIGIT)
def test_ink_of_a_photograph_is_what_was_written(style, tmp_path, mnist_root):
    rng = np.random.default_rng(5)
    for draw in draws(rng, 2, mnist_root):
        (digit,) = shot(style, draw, rng, tmp_path)
        assert digit.reason == ""
        assert likeness(digit.pixels, draw(200)) > 0.75


@pytest.mark.slow
@pytest.mark.parametrize("style", ONE_DIGIT)
def test_ink_of_other_digits_is_what_was_written(style, tmp_path, mnist_root):
    rng = np.random.default_rng(6)
    alike = []
    for label in (4, 7):
        for draw in draws(rng, label, mnist_root):
            (digit,) = shot(style, draw, rng, tmp_path)
            alike.append(not digit.reason and likeness(digit.pixels, draw(200)) > 0.75)
    assert sum(alike) >= 3


def test_nothing_is_read_where_nothing_is_written(tmp_path):
    rng = np.random.default_rng(7)
    for _ in range(6):
        (digit,) = shot("empty", None, rng, tmp_path)
        assert digit.reason


def test_two_digits_are_told_from_one_and_read_in_order(tmp_path):
    rng = np.random.default_rng(8)
    for first, second in ((1, 7), (4, 0), (8, 5)):
        pair = [marks.penned(marks.DIGITS[label], rng) for label in (first, second)]
        (unsure,) = shot("two_digits", pair[0], rng, tmp_path, pair[1])
        assert "several" in unsure.reason
        digits = shot("two_digits", pair[0], rng, tmp_path, pair[1], several=True)
        assert len(digits) == 2
        for digit, draw in zip(digits, pair, strict=True):
            assert digit.reason == ""
            assert likeness(digit.pixels, draw(200)) > 0.75


@pytest.mark.parametrize(("y", "x"), [(108, 158), (108, 640), (490, 158), (490, 640)])
def test_a_table_near_a_small_digit_is_not_ink(y, x, tmp_path):
    draw = marks.penned(marks.DIGITS[3], np.random.default_rng(11))
    ink = draw(100)
    picture = np.full((700, 900), 40, np.float32)
    picture[100:600, 150:750] = 220
    picture[y : y + ink.shape[0], x : x + ink.shape[1]] -= 180 * ink
    Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(tmp_path / "table.png")
    (digit,) = reading.read([tmp_path / "table.png"]).digits
    assert digit.reason == ""
    assert likeness(digit.pixels, draw(200)) > 0.75


def test_lines_of_digits_are_read_from_the_top_and_the_left(tmp_path):
    rng = np.random.default_rng(9)
    sheet = np.zeros((500, 700), np.float32)
    drawn = [marks.penned(marks.DIGITS[n], rng) for n in (3, 1, 4, 2, 7)]
    for draw, (y, x) in zip(
        drawn, [(40, 60), (60, 300), (30, 480), (270, 90), (290, 400)], strict=True
    ):
        ink = draw(130)
        sheet[y : y + ink.shape[0], x : x + ink.shape[1]] = ink
    Image.fromarray((255 - 220 * sheet).astype(np.uint8)).save(tmp_path / "page.png")
    digits = reading.read([tmp_path / "page.png"], several=True).digits
    assert [d.name for d in digits] == [f"{tmp_path / 'page.png'}[{n}]" for n in range(5)]
    for digit, draw in zip(digits, drawn, strict=True):
        assert likeness(digit.pixels, draw(200)) > 0.75


def test_a_digit_that_goes_on_outside_is_unsure_and_a_tight_cutting_is_not(tmp_path):
    ink = marks.penned(marks.DIGITS[5], np.random.default_rng(3))(300)
    sheet = 255 - 220 * np.pad(ink, 60)
    for name, part, reason in (
        ("cut.png", sheet[160:], "touches the edge"),
        ("tight.png", 255 - 220 * ink, ""),
    ):
        Image.fromarray(part.astype(np.uint8)).save(tmp_path / name)
        (digit,) = reading.read([tmp_path / name]).digits
        assert digit.reason == reason


def test_components_are_those_of_a_flood():
    mask = np.random.default_rng(0).random((40, 50)) < 0.4
    labels, count = components(mask)
    assert np.array_equal(labels > 0, mask)
    for label in range(1, count + 1):
        part = labels == label
        flood = np.zeros_like(mask)
        flood[tuple(np.argwhere(part)[0])] = True
        while not np.array_equal(flood, more := grown(flood, 1) & mask):
            flood = more
        assert np.array_equal(flood, part)


def test_run_lengths_count_along_both_axes():
    mask = np.array([[1, 1, 0], [1, 0, 1]], bool)
    assert run_lengths(mask, 1).tolist() == [[2, 2, 0], [1, 0, 1]]
    assert run_lengths(mask, 0).tolist() == [[2, 1, 0], [2, 0, 1]]
