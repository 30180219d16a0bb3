"""Mini-batches by index into images held in memory, K of them at a time.

Shapes: N images held, n images of one block, K mini-batches a block, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import SequentialSampler

from data.source import DatasetError

# NumPy's, since Lightning walks through lists entry by entry and moves tensors to the device.
Counts = np.ndarray[Any, np.dtype[np.int64]]


class Block(NamedTuple):
    """This rank's part of K consecutive mini-batches, one after the other."""

    images: Tensor
    """(N, H, W) uint8: all that are held, where the model is; nothing is copied."""
    labels: Tensor
    """(N,) int64"""
    order: Tensor
    """(n,) int64: which of them, one after the other."""
    sizes: Counts
    """(K,) how many of the n belong to each mini-batch."""
    starts: Counts
    """(K,) how many of a mini-batch's images other ranks have before them."""
    totals: Counts
    """(K,) the size of each mini-batch over all ranks."""


@dataclass
class EpochOrder:
    """The images an epoch visits: a function of the seed and the epoch, the same on every rank."""

    index: Tensor
    """(M,) int64: the images to draw from."""
    seed: int
    draws: int | None = None
    """Images drawn with replacement; None takes each of the M once, shuffled."""
    epoch: int = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.index) if self.draws is None else self.draws

    def indices(self) -> Tensor:
        """The epoch's images in order, (len(self),) int64."""
        # Stream 0 of a seed belongs to the validation split.
        generator = np.random.default_rng((self.seed, 1 + self.epoch))
        if self.draws is None:
            positions = generator.permutation(len(self.index))
        else:
            positions = generator.integers(len(self.index), size=self.draws)
        return self.index[torch.from_numpy(positions)]


class InOrder(SequentialSampler):
    """Every image of `index` as it stands: the order of an evaluation, or of every epoch.

    Its base class is how Lightning knows one that does not shuffle.

    Args:
        index: (M,) int64.
    """

    def __init__(self, index: Tensor) -> None:
        super().__init__(index)
        self.index = index

    def __len__(self) -> int:
        return len(self.index)

    def indices(self) -> Tensor:
        """The images, (len(self),) int64."""
        return self.index


class BlockLoader:
    """Yields blocks: indices into images that stay where they are, no Python per image.

    The global mini-batches do not depend on the number of ranks: each rank takes its part of every
    one of them, uneven where the size does not divide. The position inside an epoch is part of a
    checkpoint, so that a run continues where it stopped: at the same image, whatever the block size
    or the batch size is then.

    Args:
        images: (N, H, W) uint8.
        labels: (N,) int64.
        sampler: which images, in which order. Lightning looks for this name to set the epoch.
        batch_size: images in one mini-batch, over all ranks.
        block_size: mini-batches in one block.
        rank: of this process.
        world_size: number of processes.
        iterations_left: how many mini-batches may still be learnt from, one less after each. It
            cuts a block short, and tells how much of a block has been learnt. Without it, blocks
            count as learnt when they are handed out.
    """

    # Lightning asks every loader with a sampler for this one too.
    batch_sampler = None

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        sampler: EpochOrder | InOrder,
        *,
        batch_size: int,
        block_size: int = 1,
        rank: int = 0,
        world_size: int = 1,
        iterations_left: Callable[[], int] | None = None,
    ) -> None:
        self.images = images
        self.labels = labels
        self.sampler = sampler
        self.batch_size = batch_size
        self.block_size = block_size
        self.rank = rank
        self.world_size = world_size
        self.iterations_left = iterations_left
        # What is learnt of the epoch at hand: all before the last block, and some of that.
        self._images_before = 0
        self._images_in_block = 0
        self._left_before = 0
        self._resume_at = 0

    def __len__(self) -> int:
        return -(-len(self.sampler) // (self.batch_size * self.block_size))

    @property
    def iterations(self) -> int:
        """Mini-batches in an epoch."""
        return -(-len(self.sampler) // self.batch_size)

    @property
    def images_done(self) -> int:
        """Images of the epoch at hand that have been learnt from, up to all of them."""
        learnt = self._images_in_block
        if learnt and self.iterations_left is not None:
            iterations = self._left_before - self.iterations_left()
            learnt = min(learnt, iterations * self.batch_size)
        return self._images_before + learnt

    @property
    def is_between_blocks(self) -> bool:
        """Whether all of the last block has been learnt from, or nothing of it."""
        return self.images_done - self._images_before in (0, self._images_in_block)

    @property
    def blocks_done(self) -> int:
        """Whole blocks before the next image, counted from the front of the epoch."""
        return self.images_done // (self.batch_size * self.block_size)

    def __iter__(self) -> Iterator[Block]:
        order = self.sampler.indices()
        start, self._resume_at = self._resume_at, 0
        while start < len(order) and (batches := self._batches(start)):
            chunk = order[start:][: batches * self.batch_size]
            self._hand_out(start, len(chunk))
            yield self._block(chunk)
            start += len(chunk)

    def _hand_out(self, start: int, images: int) -> None:
        self._images_before, self._images_in_block = start, images
        if self.iterations_left is not None:
            self._left_before = self.iterations_left()

    def _batches(self, start: int) -> int:
        """Mini-batches in the next block: up to where a block ends, wherever this one begins."""
        batches = self.block_size - start // self.batch_size % self.block_size
        return min(batches, self.iterations_left()) if self.iterations_left else batches

    def _block(self, chunk: Tensor) -> Block:
        totals = np.full(-(-len(chunk) // self.batch_size), self.batch_size)
        totals[-1] -= totals.sum() - len(chunk)
        # As even as can be: the first ranks have one more where it does not divide.
        each, more = np.divmod(totals, self.world_size)
        sizes = each + (self.rank < more)
        starts = self.rank * each + np.minimum(self.rank, more)
        if self.world_size > 1:
            batches = zip(chunk.split_with_sizes(totals.tolist()), starts, sizes, strict=True)
            chunk = torch.cat([batch[start : start + size] for batch, start, size in batches])
        return Block(self.images, self.labels, chunk, sizes, starts, totals)

    def state_dict(self) -> dict[str, int]:
        """How many of the epoch's images have been learnt from, and how many there are."""
        return {"images_done": self.images_done, "images": len(self.sampler)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continues at the position that `state_dict` returned.

        Raises:
            DatasetError: inside an epoch of another length, which has no such position.
        """
        done, images = state["images_done"], len(self.sampler)
        if done == state.get("images"):
            done = 0  # after the last image comes the next epoch
        if done and state.get("images", images) != images:
            raise DatasetError(
                f"the checkpoint was written {done:,} images into an epoch of {state['images']:,}, "
                f"and an epoch now has {images:,}; continue with the data options of that run, or "
                "from a checkpoint of the end of an epoch"
            )
        self._resume_at = done
        self._hand_out(done, 0)
