"""Lightning's counters, made to say what was learnt: all that the models know of its inside.

Lightning counts batches, which are blocks here: of other sizes in a continued run, cut short by
`max_steps`, begun and not ended. A checkpoint therefore says where the training loader stands, and
what Lightning's loops should say follows from that: the same for every way in which a run can come
to the same place.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer

Loops = dict[str, Any]
"""Lightning's entry "loops" of a checkpoint."""


@runtime_checkable
class Loader(Protocol):
    """What is known of the training data."""

    iterations: int
    """Mini-batches in an epoch that is not limited."""
    block_size: int
    """Mini-batches in a block."""
    images_done: int
    """Images of the epoch at hand that have been learnt from."""
    blocks_done: int
    """Whole blocks before the next image, counted from the front of the epoch."""

    def state_dict(self) -> dict[str, int]:
        """The position, with "images_done" and "images", those of a whole epoch."""


def loader_of(trainer: Trainer) -> Loader:
    """The training data.

    Raises:
        MisconfigurationException: they are of another kind.
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
    """Mini-batches in an epoch, as far as the Trainer goes through it."""
    loader = loader_of(trainer)
    return min(loader.iterations, int(trainer.num_training_batches) * loader.block_size)


class Position(NamedTuple):
    """Between two iterations of a training."""

    epochs: int
    """Epochs that are over."""
    blocks: int
    """Whole blocks of the next one that lie behind; 0 at its front."""
    inside: bool
    """Whether the next epoch has begun."""


def count_iterations(trainer: Trainer, count: int) -> None:
    """Makes `global_step` count optimizer steps that Lightning has not seen."""
    loop = trainer.fit_loop.epoch_loop.manual_optimization
    for steps in (loop.optim_step_progress.total, loop.optim_step_progress.current):
        steps.ready += count
        steps.completed += count


def count_logs(trainer: Trainer) -> None:
    """Makes what is logged next stand at the last iteration, counted from 0, as a plain Trainer's.

    Lightning counts one for each batch, which it adds when this one is logged.
    """
    trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step - 1


def current_position(trainer: Trainer, loader: Loader) -> Position:
    """Where a training is, whichever hook asks."""
    progress: Any = trainer.fit_loop.epoch_progress.current
    if not loader.images_done:
        return Position(progress.processed, 0, inside=False)
    if (
        loader.images_done == loader.state_dict()["images"]
        or loader.blocks_done >= trainer.num_training_batches  # limited to these
    ):
        return Position(progress.started, 0, inside=False)
    # Of an epoch that was cut Lightning says, some hooks later, that it was processed.
    return Position(progress.started - 1, loader.blocks_done, inside=True)


def settle(loops: Loops, position: Position) -> None:
    """Makes the saved loops say that the training stands at `position`.

    Lightning goes on inside an epoch that is ready and not processed; elsewhere it begins one.
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
    """Does the same for a checkpoint whose writer left Lightning's counters as they were.

    It was written after a block, and says that no image is done where that was an epoch's last.
    """
    states = loops["fit_loop"]["state_dict"].get("combined_loader", ())
    if not any("images_done" in state and "images" not in state for state in states):
        return
    (state,) = states
    inside = state["images_done"] > 0
    processed = loops["fit_loop"]["epoch_progress"]["current"]["processed"]
    settle(loops, Position(processed + (not inside), state["blocks_done"], inside))


def begin(trainer: Trainer) -> None:
    """Counts the blocks that lie behind in the sizes of this run; before the first iteration.

    Raises:
        MisconfigurationException: as `loader_of`.
    """
    loader = loader_of(trainer)
    # Of a search for a batch size or a rate, which an epoch's mean would count in.
    trainer.fit_loop.epoch_loop._results.clear()
    blocks, position = trainer.fit_loop.epoch_loop.batch_progress, current_position(trainer, loader)
    if loader.images_done:
        _set(blocks.current, loader.blocks_done)
    # By these, validation is due where it is not due by epochs.
    behind = position.epochs * int(trainer.num_training_batches)
    _set(blocks.total, behind + position.blocks)


def _set(counts: Any, value: int) -> None:
    counts.load_state_dict(dict.fromkeys(counts.state_dict(), value))
