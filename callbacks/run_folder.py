"""Where a run keeps its files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

# What a run writes before it learns anything.
HEADS = ("config.yaml", "hparams.yaml", "events.out.tfevents.*")


class RunFolder(Callback):
    """Says where the files of a run go, whatever it logs to.

    Args:
        parent: of the folders of all runs of that name.
        name: of a folder that is there; by default a new one, made when it is asked for.
    """

    def __init__(self, parent: Path, name: str | None = None) -> None:
        self.parent = parent
        self.name = name

    @property
    def path(self) -> Path:
        """The folder; only the rank that writes may ask."""
        if self.name is None:
            self.name = f"version_{claim_version(self.parent)}"
        return self.parent / self.name


def run_folder(trainer: Trainer) -> Path | None:
    """The folder of the run, else that of its TensorBoard events; None where nothing is written.

    Call it on every rank: the answer is a broadcast of the first one's.
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
    """Takes a claimed folder back where the run ended before there was anything to keep."""
    try:
        yield
    except BaseException:
        if folder is not None:
            with suppress(OSError):  # not empty, as of most runs; or a file is still open
                heads = {path for pattern in HEADS for path in folder.glob(pattern)}
                if heads >= {*folder.iterdir()}:
                    for path in heads:
                        path.unlink()
                folder.rmdir()
        raise
