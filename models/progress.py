"""Sets Lightning's progress counters to what has been learnt; no other module touches them.

Lightning counts batches, which are blocks here. Their size may differ in a continued run,
`max_steps` may cut one short, and one may be begun but not finished. A checkpoint therefore holds
the position of the training loader, and the state of Lightning's loops is derived from it: it is
the same however a run came to that position.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer

Loops = dict[str, Any]
"""The entry "loops" of a Lightning checkpoint."""


@runtime_checkable
class Loader(Protocol):
    """The interface of the training loader that is used here."""

    iterations: int
    """Mini-batches in an epoch without `limit_train_batches`."""
    block_size: int
    """Mini-batches in a block."""
    images_done: int
    """Images of the current epoch that have been learnt from."""
    blocks_done: int
    """Whole blocks before the next image, counted from the start of the epoch."""

    def state_dict(self) -> dict[str, int]:
        """The position: "images_done", and "images", the number of images in an epoch."""


def loader_of(trainer: Trainer) -> Loader:
    """The training loader.

    Raises:
        MisconfigurationException: the training data is of another kind.
    """
    loader = trainer.train_dataloader
    if not isinstance(loader, Loader):
        raise MisconfigurationException(
            f"{type(trainer.lightning_module).__name__} learns from blocks of images, not from a "
            f"{type(loader).__name__}: use data.MNISTDataModule, or derive from it with a load of "
            "your own (docs/make-it-yours.md)"
        )
    return loader


def iterations_per_epoch(trainer: Trainer) -> int:
    """Mini-batches in an epoch, as limited by the Trainer."""
    loader = loader_of(trainer)
    return min(loader.iterations, int(trainer.num_training_batches) * loader.block_size)


class Position(NamedTuple):
    """A position between two iterations of a training."""

    epochs: int
    """Completed epochs."""
    blocks: int
    """Completed blocks of the next epoch; 0 at its start."""
    inside: bool
    """Whether the next epoch has begun."""


def count_iterations(trainer: Trainer, count: int) -> None:
    """Makes `global_step` count optimizer steps that Lightning has not seen."""
    loop = trainer.fit_loop.epoch_loop.manual_optimization
    for steps in (loop.optim_step_progress.total, loop.optim_step_progress.current):
        steps.ready += count
        steps.completed += count


def count_logs(trainer: Trainer) -> None:
    """Makes the next log entry appear at the last iteration, counted from 0, as in a plain Trainer.

    Lightning itself counts one for each batch, and adds it when this batch is logged.
    """
    trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step - 1


def current_position(trainer: Trainer, loader: Loader) -> Position:
    """The position of a training; the same in every hook."""
    progress: Any = trainer.fit_loop.epoch_progress.current
    if not loader.images_done:
        return Position(progress.processed, 0, inside=False)
    if (
        loader.images_done == loader.state_dict()["images"]
        or loader.blocks_done >= trainer.num_training_batches  # limit_train_batches
    ):
        return Position(progress.started, 0, inside=False)
    # Not `processed`: Lightning counts an interrupted epoch as processed some hooks later.
    return Position(progress.started - 1, loader.blocks_done, inside=True)


def settle(loops: Loops, position: Position) -> None:
    """Sets the saved state of Lightning's loops to `position`.

    Lightning resumes inside an epoch that is ready and not processed; otherwise it begins one.
    """
    fit = loops["fit_loop"]
    begun = position.epochs + position.inside
    epochs, blocks = fit["epoch_progress"], fit["epoch_loop.batch_progress"]
    for count in (epochs["total"], epochs["current"]):
        count |= {"ready": begun, "started": begun}
        count |= {"processed": position.epochs, "completed": position.epochs}
    trained = blocks["total"]["processed"]
    blocks["total"] |= dict.fromkeys(blocks["total"], trained)
    blocks["current"] |= dict.fromkeys(blocks["current"], position.blocks)
    blocks["is_last_batch"] = False
    if not position.inside:
        for state in fit["state_dict"].get("combined_loader", ()):
            state["images_done"] = 0


def settle_older(loops: Loops) -> None:
    """Does the same for a checkpoint of an older version, which has Lightning's own counters.

    It was written after a block, and has 0 for "images_done" after the last block of an epoch.
    """
    states = loops["fit_loop"]["state_dict"].get("combined_loader", ())
    if not any("images_done" in state and "images" not in state for state in states):
        return
    (state,) = states
    inside = state["images_done"] > 0
    processed = loops["fit_loop"]["epoch_progress"]["current"]["processed"]
    settle(loops, Position(processed + (not inside), state["blocks_done"], inside))


def begin(trainer: Trainer) -> None:
    """Counts the completed blocks in this run's block size; called before the first iteration.

    Raises:
        MisconfigurationException: as `loader_of`.
    """
    loader = loader_of(trainer)
    # A search for a batch size or learning rate leaves results that would enter an epoch's mean.
    trainer.fit_loop.epoch_loop._results.clear()
    blocks, position = trainer.fit_loop.epoch_loop.batch_progress, current_position(trainer, loader)
    if loader.images_done:
        _set(blocks.current, loader.blocks_done)
    # With check_val_every_n_epoch=None this count decides when validation is due.
    behind = position.epochs * int(trainer.num_training_batches)
    _set(blocks.total, behind + position.blocks)


def _set(counts: Any, value: int) -> None:
    counts.load_state_dict(dict.fromkeys(counts.state_dict(), value))
