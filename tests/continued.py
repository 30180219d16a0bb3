"""A training in pieces: killed, stopped, broken off, extended, with other blocks.

A helper of test_continuing.py, and a program of its own for one of several ranks.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import numpy as np
import pytest
import torch
from helpers import TUNED
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.trainer import call
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from callbacks.checkpoint import BlockCheckpoint
from callbacks.finite import FiniteLoss
from callbacks.interrupt import Interrupt
from callbacks.loss_log import LossLog
from callbacks.run_folder import RunFolder
from callbacks.tensorboard import TensorBoard
from callbacks.timing import Timing
from data import FourNineDataModule, MNISTDataModule
from models.lenet import LeNet5
from models.linear import Linear
from project.errors import UserError
from project.experiments import RUNS, last_checkpoint

EPOCHS = 3
HOOKS = (
    "on_train_start",
    "on_train_epoch_start",
    "on_train_batch_start",
    "on_train_batch_end",
    "on_validation_end",
    "on_train_epoch_end",
    "on_train_end",
)
ENDS = ("kill", "kill while saving", "signal", "exception", "steps")


BLOCK_SIZES = (1, 2, 3, 7, 100)
EVERY = (None, None, 1, 4)


class Piece(NamedTuple):
    """One process of a training."""

    end: str
    hook: str
    """Where it ends, the `count`th time that Lightning calls it."""
    count: int
    block_size: int
    every: int | None
    """Iterations between two checkpoints."""


class Killed(BaseException):
    """Stands for SIGKILL: nothing that Lightning or a callback does on an exception is done."""


class BrokenError(Exception):
    """Of a user's own code."""


class Ends(Callback):
    """Ends a training where its piece says."""

    def __init__(self, piece: Piece) -> None:
        self.piece = piece
        self.left = piece.count

    def reach(self, hook: str) -> None:
        """Counts a hook, and ends the training where it is the one."""
        self.left -= hook == self.piece.hook
        if hook != self.piece.hook or self.left:
            return
        if self.piece.end == "kill":
            raise Killed
        if self.piece.end == "exception":
            raise BrokenError
        if self.piece.end == "signal":
            signal.raise_signal(signal.SIGTERM)


for _hook in HOOKS:
    setattr(Ends, _hook, lambda self, *_, _hook=_hook: self.reach(_hook))


def lenet(**data: Any) -> tuple[Any, Any]:
    return LeNet5(), MNISTDataModule(batch_size=9, **data)


def validated(**data: Any) -> tuple[Any, Any]:
    """By autograd, and with validation."""
    return LeNet5("modern", backend="composite"), MNISTDataModule(
        batch_size=11, val_size=40, **data
    )


def tuned(**data: Any) -> tuple[Any, Any]:
    return LeNet5(**TUNED), MNISTDataModule(batch_size=13, **data)


def logistic(**data: Any) -> tuple[Any, Any]:
    return Linear(), FourNineDataModule(iterations=17, **data)


EXPERIMENTS = {"lenet": lenet, "validated": validated, "tuned": tuned, "logistic": logistic}


def ends(experiment: str, ranks: int = 1) -> list[str]:
    """How a piece may end without its making a difference."""
    return [
        *ENDS,
        # The tuned one's schedule depends on the last epoch.
        *(["epochs"] if experiment != "tuned" else []),
        # By a loss of the user's, which only autograd would take in the others' place; and of
        # several ranks each knows its own part of the losses of a block.
        *(["exception in a block"] if experiment == "validated" and ranks == 1 else []),
    ]


def random_pieces(rng: random.Random, experiment: str, ranks: int = 1) -> list[Piece]:
    """Any ends, anywhere, with any blocks."""
    return [
        Piece(
            rng.choice(ends(experiment, ranks)),
            rng.choice(HOOKS),
            rng.randint(1, 6),
            rng.choice(BLOCK_SIZES),
            rng.choice(EVERY),
        )
        for _ in range(rng.randint(1, 6))
    ]


WHOLE = Piece("", "", 0, 5, None)


class Ranks:
    """Two processes that run the same pieces, each at its own pace between them.

    Args:
        rank: of this process.
        port: one of several in a row that are free.
    """

    def __init__(self, rank: int, port: int) -> None:
        self.rank = rank
        self.port = port
        self.store = torch.distributed.TCPStore("localhost", port, 2, is_master=rank == 0)

    def meet(self) -> None:
        """Waits for the other one; the next process group gets a port of its own."""
        self.port += 1
        self.store.add(str(self.port), 1)
        while self.store.add(str(self.port), 0) < 2:
            time.sleep(0.005)
        os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(self.port)}

    def part(self) -> None:
        """Ends the process that holds the store after the other one."""
        if self.rank:
            self.store.set("end", "1")
        else:
            self.store.wait(["end"])


def run(piece: Piece, experiment: str, root: Path, name: str, ranks: Ranks | None = None) -> None:
    """Goes on in runs/NAME/version_0, until the piece or the training ends."""
    torch.set_num_threads(1)  # images are few
    lightning.seed_everything(0, verbose=False)
    options = {"root": str(root), "verify": False, "block_size": piece.block_size}
    model, data = EXPERIMENTS[experiment](**options)
    if piece.end == "exception in a block":
        break_in(model, piece.count)
    if ranks:
        ranks.meet()
    try:
        start = last_checkpoint(name).path
    except UserError:
        start = None
    if ranks:
        ranks.meet()
    folder = RunFolder(RUNS / name, "version_0")
    trainer = Trainer(
        max_epochs=1 + piece.count % EPOCHS if piece.end == "epochs" else EPOCHS,
        max_steps=8 * piece.count if piece.end == "steps" else -1,
        accelerator="cpu",
        devices=2 if ranks else 1,
        strategy="ddp" if ranks else "auto",
        logger=TensorBoard(folder),
        callbacks=[
            folder,
            log := LossLog(),
            FiniteLoss(),
            Timing(),
            Ends(piece),
            Interrupt(),
            BlockCheckpoint(every=piece.every),
        ],
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    # Lightning refuses to train to an earlier epoch than it has reached.
    expected = [Killed, BrokenError, SystemExit, MisconfigurationException]
    expected += [RuntimeError] if ranks else []  # of a rank that lost the other one
    with dying_while_it_saves(piece), contextlib.suppress(*expected):
        trainer.fit(model, data, ckpt_path=start, weights_only=True)
    # As the system closes the files of a process that was killed.
    log.teardown(trainer, model, "fit")
    trainer.logger.finalize("failed")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    if ranks and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@contextlib.contextmanager
def dying_while_it_saves(piece: Piece) -> Iterator[None]:
    """Dies before the `count`th checkpoint has its name; on an exception says no last words."""
    left, replace, interrupt = piece.count, os.replace, call._interrupt

    def replaces(source: Any, target: Any) -> None:
        nonlocal left
        left -= str(target).endswith(".ckpt")
        if piece.end == "kill while saving" and str(target).endswith(".ckpt") and not left:
            raise Killed
        replace(source, target)

    def interrupts(trainer: Trainer, exception: BaseException) -> None:
        if not isinstance(exception, Killed):
            interrupt(trainer, exception)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", replaces)
        patch.setattr(call, "_interrupt", interrupts)
        yield


def break_in(model: Any, count: int) -> None:
    """Lets a user's loss raise in the `count`th mini-batch of this process."""
    losses = model.losses

    def raises(outputs: Any, labels: Any) -> Any:
        nonlocal count
        count -= model.training
        if model.training and count == 0:
            raise BrokenError
        return losses(outputs, labels)

    model.losses = raises


def difference(experiment: str, pieces: list[Piece], root: Path, ranks: Ranks | None = None) -> str:
    """Trains in pieces and in one go; returns how the two differ, or nothing."""
    for name, parts in (("whole", []), ("pieces", pieces)):
        if not ranks or not ranks.rank:  # the other one may be ahead
            shutil.rmtree(RUNS / name, ignore_errors=True)
        for piece in (*parts, WHOLE):
            run(piece, experiment, root, name, ranks)
    if ranks and ranks.rank:
        return ""
    whole, parted = (RUNS / name / "version_0" for name in ("whole", "pieces"))
    one, other = (np.load(folder / "losses.npy") for folder in (whole, parted))
    if len(one) != len(other):
        return f"{len(other)} iterations for {len(one)}"
    if (one != other).any():
        return f"losses differ from iteration {(one != other).argmax() + 1} on"
    weights, others = (last_checkpoint(name).state_dict for name in ("whole", "pieces"))
    if wrong := [name for name in weights if not torch.equal(weights[name], others[name])]:
        return f"weights differ: {wrong}"
    steps = [event.step for event in events(parted)]
    return "" if steps == list(range(1, len(one) + 1)) else f"TensorBoard has steps {steps}"


def events(folder: Path) -> list[Any]:
    """What TensorBoard shows of the training loss."""
    # Their names have the second, and pieces here take less.
    written = sorted(folder.glob("events*"), key=lambda path: int(path.suffix[1:]))
    for number, path in enumerate(written):
        path.rename(folder / f"events.out.tfevents.{number:010d}")
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    accumulator.Reload()
    found: list[Any] = accumulator.Scalars("train/loss")
    return found


def main(root: str, rank: str, port: str, sequences: str) -> None:
    """Of two ranks one: prints the first sequence that makes a difference."""
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    os.environ |= {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "NODE_RANK": "0"}
    ranks = Ranks(int(rank), int(port))
    for experiment, pieces in json.loads(sequences):
        found = difference(experiment, [Piece(*piece) for piece in pieces], Path(root), ranks)
        if found and not ranks.rank:
            print("DIFFERENCE:", experiment, pieces, found)
    ranks.part()


if __name__ == "__main__":
    main(*sys.argv[1:])
