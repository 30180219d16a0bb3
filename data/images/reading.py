"""Image files of single digits, brought into the shape of MNIST's own.

PNG, JPEG, BMP and what else Pillow opens, IDX files, gzipped or not, and folders of them.
"""

from __future__ import annotations

import gzip
import io
import warnings
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from data.source import DatasetError, parse_idx

SIZE, BOX = 28, 20
MOST_PIXELS = 64_000_000  # of one image
MOST_BYTES = 1 << 30  # of one file, unpacked
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
FAINT = 0.1  # of the contrast: paper, shadow, compression
GZIP, IDX = b"\x1f\x8b", b"\x00\x00\x08"

Grey = NDArray[np.float32]


class Digit(NamedTuple):
    """One image, ready for a network."""

    name: str
    """The file, and behind it the position in an IDX file."""
    pixels: Tensor
    """(28, 28) uint8, light on dark."""
    ink: str
    """What was found: dark or light."""


def read(paths: Iterable[Path]) -> list[Digit]:
    """Reads files and folders, in the order given, folders in the order of their names.

    Raises:
        DatasetError: a path that is not there, a file that is no image or too large, an image
            without a digit, a folder without images.
    """
    return [digit for path in paths for file in _files(path) for digit in _read_file(file)]


def _files(path: Path) -> Iterator[Path]:
    if not path.exists():
        raise DatasetError(f"there is no file or folder {path}")
    if not path.is_dir():
        yield path
        return
    found = [file for file in sorted(path.rglob("*")) if file.is_file() and _looks_right(file)]
    if not found:
        raise DatasetError(f"there are no images below {path}")
    yield from found


def _looks_right(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES or "idx3-ubyte" in file.name


def _read_file(path: Path) -> Iterator[Digit]:
    content = path.read_bytes()
    if content.startswith(GZIP):
        content = _unpack(path, content)
    if content.startswith(IDX):
        yield from _read_idx(path, content)
        return
    grey = _read_picture(path, content)
    yield _digit(str(path), grey)


def _unpack(path: Path, content: bytes) -> bytes:
    try:
        with gzip.open(io.BytesIO(content)) as file:
            unpacked = file.read(MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetError(f"{path} is a damaged gzip file ({error})") from error
    if len(unpacked) > MOST_BYTES:
        raise DatasetError(f"{path} has more than {MOST_BYTES:,} bytes unpacked")
    return unpacked


def _read_idx(path: Path, content: bytes) -> Iterator[Digit]:
    try:
        images = parse_idx(content, 3)
    except ValueError as error:
        raise DatasetError(f"{path}: {error}") from error
    if not len(images):
        raise DatasetError(f"{path} holds no images")
    for position, image in enumerate(images):
        name = f"{path}[{position}]"
        if image.shape == (SIZE, SIZE):  # MNIST's own, or made to be like it
            yield Digit(name, image, "light")
        else:
            yield _digit(name, image.numpy().astype(np.float32))


def _read_picture(path: Path, content: bytes) -> Grey:
    """The grey values (H, W), 0 to 255; what is transparent counts as background."""
    try:
        with warnings.catch_warnings():
            # Pillow warns of what it reads all the same, and of size, which is looked at here.
            warnings.simplefilter("ignore")
            picture: Image.Image = Image.open(io.BytesIO(content))
            if picture.width * picture.height > MOST_PIXELS:
                raise DatasetError(
                    f"{path} has {picture.width} x {picture.height} pixels, "
                    f"more than {MOST_PIXELS:,}; make it smaller"
                )
            picture = ImageOps.exif_transpose(picture)
            return _grey(picture)
    except UnidentifiedImageError as error:
        raise DatasetError(
            f"{path} is not an image (expected PNG, JPEG, BMP or IDX, gzipped or not)"
        ) from error
    except (Image.DecompressionBombError, OSError, ValueError, SyntaxError, EOFError) as error:
        raise DatasetError(f"{path} is a damaged image ({error})") from error


def _grey(picture: Image.Image) -> Grey:
    if picture.mode.startswith(("I", "F")):  # which Pillow would cut off at 255
        return _to_bytes_range(np.asarray(picture, np.float64))
    if not picture.has_transparency_data:
        return np.asarray(picture.convert("L"), np.float32)
    grey, alpha = (np.asarray(channel, np.float32) for channel in picture.convert("LA").split())
    alpha /= 255
    # Dark ink lies on white, light ink on black.
    dark = (grey * alpha).sum() < 127.5 * alpha.sum()
    background = 255.0 if dark else 0.0
    return (alpha * grey + (1 - alpha) * background).astype(np.float32)


def _to_bytes_range(values: NDArray[np.float64]) -> Grey:
    """Any range as 0 to 255, of which single precision cannot tell all numbers apart."""
    if not np.isfinite(values).all():
        raise ValueError("it has pixels that are infinite or no numbers")
    low, high = values.min(), values.max()
    factor = 255 / (high - low) if high > low else 0.0
    return np.asarray((values - low) * factor, np.float32)


def _digit(name: str, grey: Grey) -> Digit:
    contrast = float(grey.max() - grey.min()) if grey.size else 0.0
    if not contrast > 0:
        raise DatasetError(f"{name} shows nothing: all its pixels are the same")
    light_paper = _background(grey) > grey.min() + contrast / 2
    pixels = like_mnist(255 - grey if light_paper else grey)
    return Digit(name, pixels, "dark" if light_paper else "light")


def _background(grey: Grey) -> float:
    """The grey value that is usual along the border."""
    border = (grey[0], grey[-1], grey[:, 0], grey[:, -1])
    return float(np.median(np.concatenate(border)))


def like_mnist(grey: Grey) -> Tensor:
    """Puts light ink on a dark ground where MNIST puts it (LeCun et al. 1998, III.A).

    The ink's bounding box is scaled to fit 20x20 pixels, as it is in proportion, and its centre of
    mass laid into the middle of 28x28.

    Args:
        grey: (H, W), any range.

    Returns:
        (28, 28) uint8.
    """
    ground = _background(grey)
    ink = np.clip((grey - ground) / (grey.max() - ground), 0, 1)
    ink = np.clip((ink - FAINT) / (1 - FAINT), 0, 1)
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    scale = BOX / max(bottom - top, right - left)
    height, width = (max(1, round(scale * n)) for n in (bottom - top, right - left))
    box = Image.fromarray(ink[top:bottom, left:right])
    small = np.asarray(box.resize((width, height), Image.Resampling.BILINEAR))
    small = np.clip(small / small.max(), 0, 1)  # thin strokes fade when made smaller
    framed = np.zeros((SIZE, SIZE), np.float32)
    y, x = (_offset(small.sum(axis), size) for axis, size in ((1, height), (0, width)))
    framed[y : y + height, x : x + width] = small
    return torch.from_numpy(np.rint(255 * framed).astype(np.uint8))


def _offset(mass: Grey, size: int) -> int:
    """Where the box begins, for the centre of mass to lie on pixel 14, as it does in MNIST."""
    centre = float((mass * np.arange(size)).sum() / mass.sum())
    return min(max(0, round(SIZE / 2 - centre)), SIZE - size)
