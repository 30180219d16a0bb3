"""Blocks of K mini-batches, as indices into images held in memory.

Shapes: N images in memory, M in an index, n in a block; K mini-batches in a block; H W pixels.
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

# NumPy arrays, since Lightning traverses lists entry by entry and moves tensors to the device.
Counts = np.ndarray[Any, np.dtype[np.int64]]


class Block(NamedTuple):
    """This rank's part of K consecutive mini-batches."""

    images: Tensor
    """(N, H, W) uint8: all images in memory, on the model's device; not a copy."""
    labels: Tensor
    """(N,) int64"""
    order: Tensor
    """(n,) int64: indices of the block's images, one mini-batch after the other."""
    sizes: Counts
    """(K,) number of this rank's images in each mini-batch."""
    starts: Counts
    """(K,) number of images of earlier ranks in each mini-batch."""
    totals: Counts
    """(K,) the size of each mini-batch over all ranks."""


@dataclass
class EpochOrder:
    """The order of an epoch's images, which depends on the seed and the epoch, not on the rank."""

    index: Tensor
    """(M,) int64: the images to draw from."""
    seed: int
    draws: int | None = None
    """Number of images drawn with replacement; None takes each of the M once, shuffled."""
    epoch: int = 0

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch; Lightning calls this before every one."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.index) if self.draws is None else self.draws

    def indices(self) -> Tensor:
        """Returns the indices of the epoch's images in order, (len(self),) int64."""
        # Stream 0 of a seed decides the validation split.
        generator = np.random.default_rng((self.seed, 1 + self.epoch))
        if self.draws is None:
            positions = generator.permutation(len(self.index))
        else:
            positions = generator.integers(len(self.index), size=self.draws)
        return self.index[torch.from_numpy(positions)]


class InOrder(SequentialSampler):
    """Samples the images of `index` in the given order, for evaluations or equal epochs.

    By its base class Lightning recognizes that it does not shuffle.

    Args:
        index: (M,) int64.
    """

    def __init__(self, index: Tensor) -> None:
        super().__init__(index)
        self.index = index

    def __len__(self) -> int:
        return len(self.index)

    def indices(self) -> Tensor:
        """Returns the indices of the images, (len(self),) int64."""
        return self.index


class BlockLoader:
    """Yields blocks of indices into images in memory, without Python code per image.

    The global mini-batches do not depend on the number of ranks: each rank takes a part of every
    one, of unequal size if it does not divide evenly. The position inside an epoch is part of a
    checkpoint, so that a run resumes at the same image, even with another block or batch size.

    Args:
        images: (N, H, W) uint8.
        labels: (N,) int64.
        sampler: the images and their order. Lightning looks for this name to set the epoch.
        batch_size: images in one mini-batch, over all ranks.
        block_size: mini-batches in one block.
        rank: rank of this process.
        world_size: number of processes.
        iterations_left: returns how many iterations are left, one less after each. It limits the
            size of a block and tells how much of a block has been trained on. Without it, a block
            counts as trained on when it is yielded.
    """

    # Lightning reads this attribute of every loader with a sampler.
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
        # Images of the current epoch: those before the last block, and those in it.
        self._images_before = 0
        self._images_in_block = 0
        self._left_before = 0
        self._resume_at = 0

    def __len__(self) -> int:
        return -(-len(self.sampler) // (self.batch_size * self.block_size))

    @property
    def iterations(self) -> int:
        """The number of mini-batches in an epoch."""
        return -(-len(self.sampler) // self.batch_size)

    @property
    def images_done(self) -> int:
        """The number of images of the current epoch that have been trained on."""
        learnt = self._images_in_block
        if learnt and self.iterations_left is not None:
            iterations = self._left_before - self.iterations_left()
            learnt = min(learnt, iterations * self.batch_size)
        return self._images_before + learnt

    @property
    def is_between_blocks(self) -> bool:
        """Whether the last block has been trained on entirely or not at all."""
        return self.images_done - self._images_before in (0, self._images_in_block)

    @property
    def blocks_done(self) -> int:
        """The number of whole blocks of the epoch before the next image."""
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
        """Returns the next block's number of mini-batches, up to a multiple of the block size."""
        batches = self.block_size - start // self.batch_size % self.block_size
        return min(batches, self.iterations_left()) if self.iterations_left else batches

    def _block(self, chunk: Tensor) -> Block:
        totals = np.full(-(-len(chunk) // self.batch_size), self.batch_size)
        totals[-1] -= totals.sum() - len(chunk)
        # As even as possible: if it does not divide, the first ranks have one more.
        each, more = np.divmod(totals, self.world_size)
        sizes = each + (self.rank < more)
        starts = self.rank * each + np.minimum(self.rank, more)
        if self.world_size > 1:
            batches = zip(chunk.split_with_sizes(totals.tolist()), starts, sizes, strict=True)
            chunk = torch.cat([batch[start : start + size] for batch, start, size in batches])
        return Block(self.images, self.labels, chunk, sizes, starts, totals)

    def state_dict(self) -> dict[str, int]:
        """Returns how many of the epoch's images have been trained on, and how many there are."""
        return {"images_done": self.images_done, "images": len(self.sampler)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Resumes at the position that `state_dict` returned.

        Raises:
            DatasetError: the position is inside an epoch of another length.
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
