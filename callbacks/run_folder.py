"""The folders in which runs keep their files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

# Files that a run writes before its first iteration.
HEADS = ("config.yaml", "hparams.yaml", "events.out.tfevents.*")


class RunFolder(Callback):
    """Defines the folder of a run's files, whatever its loggers are.

    Args:
        parent: folder that holds all runs of one name.
        name: name of an existing folder; by default a new one is created on first access.
    """

    def __init__(self, parent: Path, name: str | None = None) -> None:
        self.parent = parent
        self.name = name

    @property
    def path(self) -> Path:
        """The folder; to be read only on the rank that writes."""
        if self.name is None:
            self.name = f"version_{claim_version(self.parent)}"
        return self.parent / self.name


def run_folder(trainer: Trainer) -> Path | None:
    """Returns the run's folder, else that of its TensorBoard events; None if nothing is written.

    It has to be called on every rank, since it broadcasts the answer of the first one.
    """
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    for callback in callbacks:
        if isinstance(callback, RunFolder):
            folder = callback.path if trainer.is_global_zero else None
            return trainer.strategy.broadcast(folder)
    if not isinstance(trainer.logger, TensorBoardLogger):
        return None
    log_dir = trainer.log_dir
    return None if log_dir is None else Path(log_dir)


def version_number(folder: Path) -> int:
    """Returns the N of a folder version_N; -1 for a folder of another name."""
    found = re.fullmatch(r"version_([0-9]+)", folder.name)
    return int(found[1]) if found else -1


def last_version(folder: Path) -> Path | None:
    """Returns the folder version_N in `folder` with the highest N; None if there is none."""
    found = [path for path in folder.glob("version_*") if version_number(path) >= 0]
    return max(found, key=version_number, default=None)


def claim_version(folder: Path) -> int:
    """Creates version_N in `folder`, with N above all existing ones, and returns N.

    Runs that start at the same time get different folders, since only one can create each.
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
    """Removes a claimed folder if an exception ends the run before there is anything to keep."""
    try:
        yield
    except BaseException:
        if folder is not None:
            with suppress(OSError):  # not empty, like most, or a file is still open
                heads = {path for pattern in HEADS for path in folder.glob(pattern)}
                if heads >= {*folder.iterdir()}:
                    for path in heads:
                        path.unlink()
                folder.rmdir()
        raise
