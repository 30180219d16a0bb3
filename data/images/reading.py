"""Reads digits from files and folders of pictures and arrays.

It reads whatever Pillow opens, IDX files, and NumPy's .npy and .npz, gzipped or not.
"""

from __future__ import annotations

import gzip
import io
import warnings
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, ImageSequence, UnidentifiedImageError, features
from torch import Tensor

from data.idx import parse_idx
from data.images.picture import NO_INK, look
from data.scaling import SIZE, scaled
from data.source import DatasetError

MOST_PIXELS = 64_000_000  # of one picture
MOST_BYTES = 1 << 30  # of one file, unpacked
PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
ARRAYS = {".npy", ".npz"}
# Formats of telephones. Pillow reads AVIF if it is built with it, HEIC never.
HEIF = {".heic", ".heif", ".avif"}
PAGED = {"TIFF", "GIF", "WEBP", "PNG"}  # a telephone's MPO holds one picture several times
GZIP, IDX, NPY, ZIP = b"\x1f\x8b", b"\x00\x00\x08", b"\x93NUMPY", b"PK\x03\x04"
THUMBNAIL = 254  # the TIFF tag whose lowest bit marks a page as a smaller version of another

Pixels = NDArray[Any]
Size = tuple[int, int]


class Digit(NamedTuple):
    """One digit, ready for a network."""

    name: str
    """The file, followed by the position in it if it holds more than one."""
    pixels: Tensor
    """(28, 28) uint8, light on dark; all 0 where nothing was found."""
    ink: str
    """The kind of ink found: dark or light."""
    reason: str = ""
    """Why an answer should not be relied on; empty if it can be."""


class Content(NamedTuple):
    """The content of files."""

    digits: list[Digit]
    refused: list[DatasetError]
    """An error for each file that cannot be read."""


def read(paths: Iterable[Path], *, several: bool = False, size: Size = (SIZE, SIZE)) -> Content:
    """Reads files and folders in the given order; the files of a folder are sorted by name.

    Args:
        paths: files and folders.
        several: whether a picture may show more than one digit.
        size: height and width of images in arrays that are only scaled, like a data set's, and not
            searched for digits; the same applies to images of the networks' own size.

    Raises:
        DatasetError: a path does not exist, or a folder has no images.
    """
    content = Content([], [])
    for file in [file for path in paths for file in _files(path)]:
        try:
            content.digits.extend(_read_file(file, several, size))
        except DatasetError as error:
            content.refused.append(error)
        except OSError as error:
            content.refused.append(DatasetError(f"{file} cannot be read ({error.strerror})"))
    return content


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise DatasetError(f"there is no file or folder {path}")
    if not path.is_dir():
        return [path]
    found = [file for file in sorted(path.rglob("*")) if file.is_file() and _looks_right(file)]
    if not found:
        raise DatasetError(f"there are no images below {path}")
    return found


def _looks_right(file: Path) -> bool:
    if file.name.startswith("._"):  # what a Mac writes beside each file
        return False
    return file.suffix.lower() in PICTURES | ARRAYS | HEIF or "idx3-ubyte" in file.name


def _read_file(path: Path, several: bool, size: Size) -> list[Digit]:
    """Returns all digits of a file, or raises a DatasetError if it is damaged."""
    if not path.is_file():  # a pipe would block, a device never ends
        raise DatasetError(f"{path} is no file, but a pipe or a device; save it as a file first")
    content = path.read_bytes()
    if content.startswith(GZIP):
        content = _unpack(path, content)
    if content.startswith(IDX):
        try:
            parts = [("", parse_idx(content, 3).numpy())]
        except ValueError as error:
            raise DatasetError(f"{path}: {error}") from error
    elif content.startswith((NPY, ZIP)):
        parts = _arrays(path, content)
    else:
        return list(_from_pictures(path, content, several))
    found = (_from_array(path, name, array, several, size) for name, array in parts)
    return [digit for digits in found for digit in digits]


def _unpack(path: Path, content: bytes) -> bytes:
    try:
        with gzip.open(io.BytesIO(content)) as file:
            unpacked = file.read(MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetError(f"{path} is a damaged gzip file ({error})") from error
    if len(unpacked) > MOST_BYTES:
        raise DatasetError(f"{path} has more than {MOST_BYTES:,} bytes unpacked")
    return unpacked


def _arrays(path: Path, content: bytes) -> list[tuple[str, Pixels]]:
    """Returns names and arrays of an .npy or .npz file; vectors in .npz are left out as labels."""
    try:
        loaded = np.load(io.BytesIO(content), allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return [("", loaded)]
        named = [(f"[{name}]", loaded[name]) for name in loaded.files]
    except Exception as error:  # zipfile, NumPy and zlib raise many kinds
        raise DatasetError(f"{path} is a damaged NumPy file ({error})") from error
    if not (found := [(name, array) for name, array in named if array.ndim > 1]):
        raise DatasetError(f"{path} holds no images, but arrays {', '.join(loaded.files)}")
    return found


def _from_array(path: Path, name: str, array: Pixels, several: bool, size: Size) -> Iterator[Digit]:
    """Yields the digits of an array (H, W), (H, W, C), (N, H, W), (N, C, H, W) or (N, H, W, C)."""
    if array.dtype.kind not in "buif" or not 2 <= array.ndim <= 4:
        raise DatasetError(
            f"{path}{name} holds no images, but {array.dtype} of shape {array.shape}; "
            "expected numbers (N, H, W) or (H, W)"
        )
    if not array.size:
        raise DatasetError(f"{path}{name} holds no images")
    if not np.isfinite(array).all():
        raise DatasetError(f"{path}{name} has pixels that are infinite or no numbers")
    is_one = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    # Channels that come first, as in torch, are moved to the end.
    images = array[None] if is_one else array
    if images.ndim == 4 and images.shape[1] in (1, 3):
        images = np.moveaxis(images, 1, -1)
    images = images[..., None] if images.ndim == 3 else images[..., :3]
    if images.dtype != np.uint8:
        images = _to_bytes_range(images)
    for n, image in enumerate(images):
        full = f"{path}{name}" if is_one else f"{path}{name}[{n}]"
        if image.shape in ((SIZE, SIZE, 1), (*size, 1)):  # from a data set, or made like one
            (pixels,) = scaled(torch.from_numpy(np.rint(image[None, ..., 0]).astype(np.uint8)))
            yield Digit(full, pixels, "light", "" if pixels.any() else NO_INK)
        else:
            yield from _digits(full, image, several)


def _from_pictures(path: Path, content: bytes, several: bool) -> Iterator[Digit]:
    """Yields the digits of all pages of a picture."""
    pages = _pages(path, content)
    first = next(pages)
    second = next(pages, None)
    if second is None:
        yield from _digits(str(path), first, several)
        return
    for n, page in enumerate([first, second]):
        yield from _digits(f"{path}[{n}]", page, several)
    for n, page in enumerate(pages, 2):
        yield from _digits(f"{path}[{n}]", page, several)


def _digits(name: str, picture: Pixels, several: bool) -> Iterator[Digit]:
    seen = look(picture, several=several)
    for n, (pixels, ink, reason) in enumerate(seen):
        if pixels is None:
            pixels = torch.zeros(SIZE, SIZE, dtype=torch.uint8)
        yield Digit(f"{name}[{n}]" if len(seen) > 1 else name, pixels, ink, reason)


def _pages(path: Path, content: bytes) -> Iterator[Pixels]:
    """Yields the pages (H, W, C) of a picture, 0 to 255."""
    try:
        with warnings.catch_warnings():
            # Pillow warns of flaws that it can handle, and of large sizes, which are checked here.
            warnings.simplefilter("ignore")
            picture: Image.Image = Image.open(io.BytesIO(content))
            yield from _read_pages(path, picture)
    except UnidentifiedImageError as error:
        raise DatasetError(_unknown(path, content)) from error
    except Image.DecompressionBombError as error:
        raise DatasetError(
            f"{path} has far more than {MOST_PIXELS:,} pixels; make it smaller"
        ) from error
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise DatasetError(f"{path} is a damaged image ({error})") from error


def reads_avif() -> bool:
    """Whether this version of Pillow reads AVIF, which older ones do not know."""
    return "avif" in features.modules and bool(features.check("avif"))


def _unknown(path: Path, content: bytes) -> str:
    if content[4:8] == b"ftyp":
        kind = "AVIF" if content[8:12] in (b"avif", b"avis") else "HEIC"
        if kind == "AVIF" and reads_avif():
            return f"{path} is a damaged image (in AVIF)"
        return f"{path} is a picture in {kind}, which is not read here; save it as JPEG or PNG"
    return f"{path} is not an image (expected PNG, JPEG, GIF, TIFF, WebP, BMP, IDX or NumPy's)"


def _read_pages(path: Path, picture: Image.Image) -> Iterator[Pixels]:
    pages = ImageSequence.Iterator(picture) if picture.format in PAGED else iter([picture])
    for n, page in enumerate(pages):
        if page.width * page.height > MOST_PIXELS:
            raise DatasetError(
                f"{path} has {page.width} x {page.height} pixels, "
                f"more than {MOST_PIXELS:,}; make it smaller"
            )
        tags: Any = getattr(page, "tag_v2", {})
        if n and tags.get(THUMBNAIL, 0) & 1:
            continue
        yield _colours(ImageOps.exif_transpose(page))


def _colours(picture: Image.Image) -> Pixels:
    """Returns the pixels (H, W, C) with 1 or 3 channels, on a contrasting ground if transparent."""
    if picture.mode.startswith(("I", "F")):  # which Pillow would clip at 255
        return _to_bytes_range(np.asarray(picture))[..., None]
    if picture.has_transparency_data:
        return _in_front(np.asarray(picture.convert("RGBA"), np.float32))
    if picture.mode in ("L", "1"):
        return np.asarray(picture.convert("L"))[..., None]
    return np.asarray(picture.convert("RGB"))


def _in_front(picture: NDArray[np.float32]) -> Pixels:
    """Composes RGBA (H, W, 4) with white or black, or with the paper if that is opaque."""
    colours, alpha = picture[..., :3], picture[..., 3:] / 255
    solid = colours[alpha[..., 0] > 0.5]
    # A photograph whose corners were cut away; otherwise ink on a transparent ground.
    if len(solid) > alpha.size / 2 and solid.mean(1).std() > 20:
        return alpha * colours + (1 - alpha) * np.median(solid, 0)
    dark = (colours * alpha).sum() < 127.5 * 3 * alpha.sum()
    return alpha * colours + (1 - alpha) * np.float32(255 if dark else 0)


def _to_bytes_range(values: Pixels) -> NDArray[np.float32]:
    """Scales any range to 0 to 255, in double precision, which keeps large numbers distinct."""
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("it has pixels that are infinite or no numbers")
    low, high = values.min(), values.max()
    factor = 255 / (high - low) if high > low else 0.0
    return np.asarray((values - low) * factor, np.float32)
