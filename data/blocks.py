"""Mini-batches by index from images held in memory, K of them at a time.

Shapes: N images held, n images of one block, K mini-batches a block, H W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Block(NamedTuple):
    """This rank's share of K consecutive mini-batches, one after the other."""

    images: Tensor
    """(n, H, W) uint8"""
    labels: Tensor
    """(n,) int64"""
    sizes: list[int]
    """K counts: how many of the images belong to each mini-batch; their sum is n."""
    totals: list[int]
    """K counts: the size of each mini-batch over all ranks."""


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


@dataclass
class InOrder:
    """Every image of `index` once, as it stands: the order of an evaluation."""

    index: Tensor

    def __len__(self) -> int:
        return len(self.index)

    def indices(self) -> Tensor:
        """The images, (len(self),) int64."""
        return self.index


class BlockLoader:
    """Yields blocks; one gather each, no Python per image.

    The global mini-batches do not depend on the number of ranks: each rank takes its part of every
    one of them, uneven where the size does not divide. The position inside an epoch is part of a
    checkpoint, so that a run continues where it stopped.

    Args:
        images: (N, H, W) uint8.
        labels: (N,) int64.
        sampler: which images, in which order. Lightning looks for this name to set the epoch.
        batch_size: images in one mini-batch, over all ranks.
        block_size: mini-batches in one block.
        rank: of this process.
        world_size: number of processes.
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
    ) -> None:
        self.images = images
        self.labels = labels
        self.sampler = sampler
        self.batch_size = batch_size
        self.block_size = block_size
        self.rank = rank
        self.world_size = world_size
        self._images_done = 0
        self._resume_at = 0

    def __len__(self) -> int:
        return -(-len(self.sampler) // (self.batch_size * self.block_size))

    def __iter__(self) -> Iterator[Block]:
        order = self.sampler.indices()
        self._images_done, self._resume_at = self._resume_at, 0
        while self._images_done < len(order):
            chunk = order[self._images_done :][: self.batch_size * self.block_size]
            # Counted before the block is handed out: a checkpoint is written once it is learnt.
            self._images_done += len(chunk)
            yield self._block(chunk)

    def _block(self, chunk: Tensor) -> Block:
        whole, rest = divmod(len(chunk), self.batch_size)
        totals = [self.batch_size] * whole + [rest] * (rest > 0)
        sizes = totals
        if self.world_size > 1:
            shares = [
                batch.tensor_split(self.world_size)[self.rank]
                for batch in chunk.split_with_sizes(totals)
            ]
            sizes = [len(share) for share in shares]
            chunk = torch.cat(shares)
        # index_select, since images[chunk] takes 20 times as long for bytes.
        images, labels = (held.index_select(0, chunk) for held in (self.images, self.labels))
        return Block(images, labels, sizes, totals)

    def state_dict(self) -> dict[str, int]:
        """Where in the epoch the next block begins."""
        # An epoch whose last block is out is over: the next one begins at the front.
        return {"images_done": self._images_done % len(self.sampler)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continues at the position that `state_dict` returned."""
        self._resume_at = state["images_done"]
