"""Digits as people photograph and scan them, made by a script: styles of paper, light and file.

A style is a function of a random generator and `draw`, which gives the ink (height, width) of one
digit in [0, 1] for a height in pixels. Everything about a picture is drawn at random: its size, the
paper, strengths and directions of light, width, colour and angle of lines, the camera's blur and
noise. `save` writes one picture in the style's own file format.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from marks import Array, Draw, Random
from paper import blurred, finished, grid, over, paper, pen, place, placed, plain, size
from PIL import Image, ImageFilter


class Shot(NamedTuple):
    """A picture and how it is written."""

    image: Image.Image
    suffix: str = "png"
    options: Mapping[str, Any] = MappingProxyType({})


def light_gradient(rng: Random, draw: Draw) -> Shot:
    picture = plain(rng, draw)
    y, x = grid(picture.shape[:2])
    angle, dark = rng.uniform(0, 2 * np.pi), rng.uniform(0.25, 0.75)
    slope = (np.cos(angle) * x + np.sin(angle) * y) / 1.4
    light = 1 - dark * np.clip(0.5 + 0.5 * slope, 0, 1) ** rng.uniform(0.7, 1.8)
    return Shot(finished(rng, picture * light[..., None]))


def hand_shadow(rng: Random, draw: Draw) -> Shot:
    """Fingers and a palm that come in from a side, dark by a third to two thirds."""
    picture = plain(rng, draw)
    y, x = grid(picture.shape[:2])
    if rng.random() < 0.5:
        y, x = x, y
    y, x = y * rng.choice([-1, 1]), x * rng.choice([-1, 1])
    shadow = np.zeros(y.shape, np.float32)
    reach, spread = rng.uniform(-0.5, 0.4), rng.uniform(0.2, 0.4)
    for finger in range(4):
        middle = rng.uniform(-0.3, 0.3) * 0.2 + (finger - 1.5) * spread + rng.uniform(-0.1, 0.1)
        tip = reach + abs(finger - 1.5) * rng.uniform(0.05, 0.15)
        slanted = y - middle - 0.25 * (x - tip)
        shadow = np.maximum(shadow, (abs(slanted) < spread * 0.45) & (x > tip))
    palm = np.hypot((x - 1.1) / 0.8, (y - 0.1) / rng.uniform(0.5, 0.8)) < 1
    shadow = blurred(np.maximum(shadow, palm), min(shadow.shape) * rng.uniform(0.012, 0.05))
    return Shot(finished(rng, picture * (1 - rng.uniform(0.3, 0.65) * shadow[..., None])))


def vignette(rng: Random, draw: Draw) -> Shot:
    picture = plain(rng, draw)
    y, x = grid(picture.shape[:2])
    radius = np.hypot(y - rng.uniform(-0.3, 0.3), x - rng.uniform(-0.3, 0.3))
    light = 1 - rng.uniform(0.3, 0.8) * np.clip(radius / 1.4, 0, 1) ** rng.uniform(1.5, 3)
    return Shot(finished(rng, picture * light[..., None]))


def rules(rng: Random, shape: tuple[int, int], gap: float, width: float, tilt: float) -> Array:
    """Parallel lines (H, W), of a width in pixels, tilted by an angle."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    across = (y * np.cos(tilt) - x * np.sin(tilt) + rng.uniform(0, gap)) % gap
    return np.clip(width / 2 + 0.5 - np.minimum(across, gap - across), 0, 1)


def ruling(rng: Random) -> Array:
    return np.array(
        [(120, 150, 210), (150, 150, 155), (200, 120, 130), (100, 110, 125)][rng.integers(4)], float
    )


def lined(rng: Random, draw: Draw) -> Shot:
    shape = size(rng)
    gap, width = min(shape) * rng.uniform(0.1, 0.3), rng.uniform(1, 3.5)
    lines = rules(rng, shape, gap, width, np.deg2rad(rng.uniform(-4, 4)))
    sheet = over(paper(rng, shape), lines, ruling(rng))
    return Shot(finished(rng, over(sheet, placed(rng, draw, shape, (0.3, 0.65)), pen(rng))))


def squared(rng: Random, draw: Draw) -> Shot:
    shape = size(rng)
    gap, width = min(shape) * rng.uniform(0.06, 0.2), rng.uniform(1, 3)
    tilt = np.deg2rad(rng.uniform(-4, 4))
    lines = rules(rng, shape, gap, width, tilt)
    turned = rules(rng, shape[::-1], gap, width, -tilt).T
    sheet = over(paper(rng, shape), np.maximum(lines, turned), ruling(rng))
    return Shot(finished(rng, over(sheet, placed(rng, draw, shape, (0.35, 0.65)), pen(rng))))


def box(rng: Random, draw: Draw) -> Shot:
    """The box of a form, whose lines are as dark as the ink; the digit may stick out a little."""
    shape = size(rng)
    ink = draw(int(min(shape) * rng.uniform(0.3, 0.5)))
    height = int(ink.shape[0] * rng.uniform(1.15, 1.6))
    width = int(max(ink.shape[1] * rng.uniform(1.15, 1.5), height * rng.uniform(0.7, 1)))
    line = int(rng.integers(2, 6))
    frame = np.ones((height + 2 * line, width + 2 * line), np.float32)
    frame[line:-line, line:-line] = 0
    y, x = ((n - m) // 2 for n, m in zip(frame.shape, ink.shape, strict=True))
    y, x = y + int(rng.uniform(-0.8, 0.8) * y), x + int(rng.uniform(-0.8, 0.8) * x)
    y, x = max(0, y), max(0, x)
    place_of = place(rng, shape, frame, 0.1)
    sheet = over(paper(rng, shape), place_of, rng.uniform(20, 130, 3))
    top, left = (np.flatnonzero(place_of.any(axis))[0] for axis in (1, 0))
    area = sheet[top + y :, left + x :][: ink.shape[0], : ink.shape[1]]
    area[:] = over(area, ink[: area.shape[0], : area.shape[1]], pen(rng))
    return Shot(turn(rng, sheet, 3))


def turn(rng: Random, picture: Array, degrees: float) -> Image.Image:
    """Turned by some angle, the corners filled by the picture's usual colour."""
    usual = tuple(int(v) for v in np.median(picture, (0, 1)))
    image = finished(rng, picture)
    return image.rotate(rng.uniform(-degrees, degrees), Image.Resampling.BICUBIC, fillcolor=usual)


def dark_table(rng: Random, draw: Draw) -> Shot:
    """A sheet, turned, that lies on a table of wood or stone."""
    shape = size(rng)
    y, x = grid(shape)
    table = rng.uniform([30, 25, 20], [90, 75, 65])
    grain = np.cumsum(rng.normal(0, 1, (shape[0], 1)), 0) * rng.uniform(0, 1)
    picture = table + np.clip(grain, -15, 15)[..., None] + rng.normal(0, 3, (*shape, 1))
    angle = np.deg2rad(rng.uniform(-25, 25))
    y, x = y - rng.uniform(-0.15, 0.15), x - rng.uniform(-0.15, 0.15)
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    sheet = (abs(u) < rng.uniform(0.5, 0.68)) & (abs(v) < rng.uniform(0.5, 0.68))
    picture = over(picture, blurred(sheet, 1), rng.uniform(190, 250) + rng.uniform(-8, 8, 3))
    ink = placed(rng, draw, shape, (0.22, 0.32))
    return Shot(finished(rng, over(picture, ink, pen(rng))))


def chalk(rng: Random, draw: Draw) -> Shot:
    shape = size(rng)
    board = np.array([(35, 60, 50), (40, 42, 45), (28, 45, 38)][rng.integers(3)], float)
    smears = blurred(rng.random(shape) > 0.5, min(shape) / 15)
    smears = (smears - smears.mean()) / max(smears.std(), 1e-6) * rng.uniform(2, 8)
    picture = board + smears[..., None] + rng.normal(0, 3, (*shape, 1))
    ink = placed(rng, draw, shape, (0.35, 0.65))
    rubbed = np.clip(blurred(rng.random(shape), 1.5) * 6 - rng.uniform(1.2, 2.2), 0.25, 1)
    return Shot(finished(rng, over(picture, ink * rubbed, rng.uniform(190, 245, 3))))


def faint_pencil(rng: Random, draw: Draw) -> Shot:
    shape = size(rng)
    sheet = paper(rng, shape, 215, 250)
    grainy = np.clip(blurred(rng.random(shape), 0.8) * 3 - 0.9, 0.4, 1)
    ink = placed(rng, draw, shape, (0.35, 0.65)) * grainy
    return Shot(finished(rng, over(sheet, ink, sheet.mean() - rng.uniform(28, 60))))


INKS = [(200, 30, 40), (30, 60, 200), (20, 130, 60), (230, 120, 20), (120, 40, 150), (230, 60, 140)]
PAPERS = [(250, 240, 150), (190, 225, 250), (250, 200, 210), (200, 240, 200), (240, 225, 195)]


def coloured_ink(rng: Random, draw: Draw) -> Shot:
    shape = size(rng)
    sheet = paper(rng, shape, 220, 250)
    ink = placed(rng, draw, shape, (0.35, 0.7))
    return Shot(finished(rng, over(sheet, ink, INKS[rng.integers(len(INKS))])))


def coloured_paper(rng: Random, draw: Draw) -> Shot:
    shape = size(rng)
    sheet = rng.normal(0, 1.5, (*shape, 1)) + PAPERS[rng.integers(len(PAPERS))]
    ink = placed(rng, draw, shape, (0.35, 0.7))
    return Shot(finished(rng, over(sheet, ink, INKS[rng.integers(len(INKS))])))


def off_centre(rng: Random, draw: Draw) -> Shot:
    shape = size(rng)
    ink = draw(int(min(shape) * rng.uniform(0.2, 0.4)))
    margins = np.pad(ink, int(rng.integers(8, 20)))
    corner = place(rng, shape, margins, 0)
    shifts = [(n - m) // 2 * rng.choice([-1, 1]) for n, m in zip(shape, margins.shape, strict=True)]
    return Shot(finished(rng, over(paper(rng, shape), np.roll(corner, shifts, (0, 1)), pen(rng))))


def tiny(rng: Random, draw: Draw) -> Shot:
    """A page of A4 at 100 to 200 dots per inch and a digit of 4 to 8 mm."""
    dots = rng.uniform(100, 200) / 25.4
    shape = int(297 * dots), int(210 * dots)
    ink = place(rng, shape, draw(int(rng.uniform(5, 10) * dots)), 0.4)
    return Shot(finished(rng, over(paper(rng, shape), ink, pen(rng))))


def dusty(rng: Random, draw: Draw) -> Shot:
    picture = plain(rng, draw, (0.2, 0.5))
    for _ in range(rng.integers(1, 12)):
        side = int(rng.integers(2, 8))
        y, x = (int(rng.integers(0, n - side)) for n in picture.shape[:2])
        picture[y : y + side, x : x + side] = rng.uniform(0, 120)
    return Shot(finished(rng, picture))


def transparent_dark(rng: Random, draw: Draw) -> Shot:
    return Shot(on_nothing(rng, draw, rng.uniform(0, 60, 3)))


def transparent_light(rng: Random, draw: Draw) -> Shot:
    return Shot(on_nothing(rng, draw, rng.uniform(200, 255, 3)))


def on_nothing(rng: Random, draw: Draw, colour: Array) -> Image.Image:
    ink = placed(rng, draw, size(rng), (0.35, 0.8))
    picture = np.ones((*ink.shape, 4)) * [*colour, 0]
    picture[..., 3] = 255 * ink
    return Image.fromarray(picture.astype(np.uint8))


def two_digits(rng: Random, draw: Draw, second: Draw | None = None) -> Shot:
    """Beside one another, of nearly the same height, not touching."""
    shape = size(rng)
    height = int(min(shape) * rng.uniform(0.2, 0.35))
    inks = [d(int(height * rng.uniform(0.85, 1.1))) for d in (draw, second or draw)]
    gap = int(height * rng.uniform(0.2, 0.6))
    tall = max(ink.shape[0] for ink in inks)
    row = np.zeros((tall, sum(ink.shape[1] for ink in inks) + gap), np.float32)
    for ink, x in zip(inks, (0, inks[0].shape[1] + gap), strict=True):
        y = int(rng.uniform(0, tall - ink.shape[0]))
        row[y : y + ink.shape[0], x : x + ink.shape[1]] = ink
    row = row[:, : shape[1] - 30]
    return Shot(finished(rng, over(paper(rng, shape), place(rng, shape, row), pen(rng))))


def empty(rng: Random, draw: Draw) -> Shot:
    """A sheet on which nothing is written: plain, in uneven light, ruled, or dusty."""

    def nothing(height: int) -> Array:
        return np.zeros((height, height), np.float32)

    kinds = [plain, light_gradient, vignette, lined, squared, hand_shadow, dusty, dark_table]
    shot = kinds[rng.integers(len(kinds))](rng, nothing)
    return shot if isinstance(shot, Shot) else Shot(finished(rng, shot))


def scan(rng: Random, draw: Draw) -> Image.Image:
    return finished(rng, plain(rng, draw))


def exif(rng: Random, draw: Draw) -> Shot:
    """Stored turned, with the note how to turn it back."""
    turns = {6: 90, 3: 180, 8: 270}
    orientation = int(rng.choice(list(turns)))
    image = scan(rng, draw)
    notes = image.getexif()
    notes[0x0112] = orientation
    stored = image.rotate(turns[orientation], expand=True)
    return Shot(stored, "jpg", {"exif": notes.tobytes(), "quality": 90})


def sixteen_bits(rng: Random, draw: Draw) -> Shot:
    grey = np.asarray(scan(rng, draw).convert("L"), np.float64)
    low, high = rng.uniform(0, 20000), rng.uniform(25000, 65000)
    return Shot(Image.fromarray((low + grey / 255 * (high - low)).astype(np.uint16)))


def palette(rng: Random, draw: Draw) -> Shot:
    return Shot(scan(rng, draw).quantize(int(rng.integers(4, 64))))


def one_bit(rng: Random, draw: Draw) -> Shot:
    image = scan(rng, draw).convert("L")
    if rng.random() < 0.5:
        return Shot(image.convert("1"))  # dithered
    return Shot(image.point(lambda v: 255 * (v > 128)).convert("1"))


def cmyk(rng: Random, draw: Draw) -> Shot:
    return Shot(scan(rng, draw).convert("CMYK"), "jpg", {"quality": int(rng.integers(60, 95))})


def gif(rng: Random, draw: Draw) -> Shot:
    return Shot(scan(rng, draw), "gif")


def tiff(rng: Random, draw: Draw) -> Shot:
    return Shot(scan(rng, draw), "tif", {"compression": str(rng.choice(["tiff_lzw", "raw"]))})


def webp(rng: Random, draw: Draw) -> Shot:
    return Shot(scan(rng, draw), "webp", {"quality": int(rng.integers(20, 90))})


def jpeg_artefacts(rng: Random, draw: Draw) -> Shot:
    return Shot(scan(rng, draw), "jpg", {"quality": int(rng.integers(5, 20))})


def out_of_focus(rng: Random, draw: Draw) -> Shot:
    image = scan(rng, draw)
    return Shot(image.filter(ImageFilter.GaussianBlur(min(image.size) * rng.uniform(0.008, 0.02))))


def noisy(rng: Random, draw: Draw) -> Shot:
    picture = plain(rng, draw)
    picture = picture + rng.normal(0, rng.uniform(8, 35), picture.shape)
    spots = rng.random(picture.shape[:2]) < rng.uniform(0, 0.003)
    picture[spots] = 255 * (rng.random((spots.sum(), 1)) > 0.5)
    return Shot(Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)))


ONE_DIGIT = [
    light_gradient, hand_shadow, vignette, lined, squared, box, dark_table, chalk, faint_pencil,
    coloured_ink, coloured_paper, off_centre, tiny, dusty, transparent_dark, transparent_light,
    exif, sixteen_bits, palette, one_bit, cmyk, gif, tiff, webp, jpeg_artefacts, out_of_focus,
    noisy,
]  # fmt: skip
STYLES = {style.__name__: style for style in [*ONE_DIGIT, two_digits, empty]}


def save(path: Path, shot: Shot) -> Path:
    """Writes a picture; returns the path with its suffix."""
    path = path.with_suffix(f".{shot.suffix}")
    shot.image.save(path, **shot.options)
    return path
