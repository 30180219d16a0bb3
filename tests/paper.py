"""Paper, ink and light: pictures (H, W, 3), 0 to 255, as a camera or a scanner sees them."""

from __future__ import annotations

from typing import Any

import numpy as np
from marks import Array, Draw, Random
from PIL import Image, ImageFilter


def size(rng: Random) -> tuple[int, int]:
    return int(rng.integers(360, 900)), int(rng.integers(360, 900))


def place(rng: Random, shape: tuple[int, int], ink: Array, middle: float = 0.12) -> Array:
    """The ink on a sheet, `middle` of the free room away from its centre at most."""
    sheet = np.zeros(shape, np.float32)
    room = [n - m for n, m in zip(shape, ink.shape, strict=True)]
    y, x = (int(r * rng.uniform(0.5 - middle, 0.5 + middle)) for r in room)
    sheet[y : y + ink.shape[0], x : x + ink.shape[1]] = ink
    return sheet


def placed(rng: Random, draw: Draw, shape: tuple[int, int], share: tuple[float, float]) -> Array:
    return place(rng, shape, draw(int(min(shape) * rng.uniform(*share))))


def paper(rng: Random, shape: tuple[int, int], low: float = 195, high: float = 250) -> Array:
    """A sheet of a nearly white colour with a fine grain."""
    colour = rng.uniform(low, high) + rng.uniform(-8, 8, 3)
    return colour + rng.normal(0, rng.uniform(0.5, 2.5), (*shape, 1)) * np.ones(3)


def pen(rng: Random) -> Array:
    """Black, grey, or ballpoint blue."""
    return np.array([(25, 25, 30), (50, 50, 55), (30, 45, 120)][rng.integers(3)], float)


def over(picture: Array, ink: Array, colour: Any) -> Array:
    return picture + ink[..., None] * (np.asarray(colour, float) - picture)


def blurred(channel: Array, radius: float) -> Array:
    image = Image.fromarray(np.clip(255 * channel, 0, 255).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), np.float32) / 255


def finished(rng: Random, picture: Array) -> Image.Image:
    """As a camera sees it: a little blur, and noise that is not the same in every picture."""
    noisy = picture + rng.normal(0, rng.uniform(0.5, 5), picture.shape)
    image = Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 1.2)))


def plain(rng: Random, draw: Draw, share: tuple[float, float] = (0.35, 0.7)) -> Array:
    shape = size(rng)
    return over(paper(rng, shape), placed(rng, draw, shape, share), pen(rng))


def grid(shape: tuple[int, int]) -> tuple[Array, Array]:
    """Rows and columns, from -1 to 1."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    return y, x
