"""Where a run keeps its files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger


def run_folder(trainer: Trainer) -> Path | None:
    """The folder of the run's TensorBoard events; None for a run that writes nothing.

    Call it on every rank: the answer is a broadcast of the first one's.
    """
    if not isinstance(trainer.logger, TensorBoardLogger):
        return None
    folder = trainer.log_dir
    return None if folder is None else Path(folder)


def version_number(folder: Path) -> int:
    """The N of a folder version_N; -1 for a folder of another name."""
    found = re.fullmatch(r"version_([0-9]+)", folder.name)
    return int(found[1]) if found else -1


def last_version(folder: Path) -> Path | None:
    """The folder version_N in `folder` with the highest N; None where there is none."""
    found = [path for path in folder.glob("version_*") if version_number(path) >= 0]
    return max(found, key=version_number, default=None)


def claim_version(folder: Path) -> int:
    """Makes version_N in `folder`, N above all that are there, and returns N.

    Making it is what claims it: of several runs that start at once each gets its own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    last = last_version(folder)
    for number in count(version_number(last) + 1 if last else 0):
        with suppress(FileExistsError):
            (folder / f"version_{number}").mkdir()
            return number
    raise AssertionError("unreachable")


@contextmanager
def removed_if_empty(folder: Path | None) -> Iterator[None]:
    """Takes a claimed folder back where the run ended before it wrote anything."""
    try:
        yield
    except BaseException:
        if folder is not None:
            with suppress(OSError):  # not empty, as of most runs
                folder.rmdir()
        raise
