"""The data module of MNIST: 60,000 images to train on, 10,000 to test on."""

from __future__ import annotations

import copy
import sys
from typing import ClassVar, Literal, Self

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from data import source
from data.blocks import BlockLoader, EpochOrder, InOrder
from data.counts import Counts, longest_on_device
from data.scaling import SIZE, scaled

TEN = tuple(range(10))


class MNISTDataModule(LightningDataModule):
    """MNIST, held in memory once as bytes and loaded in blocks of mini-batches.

    Args:
        root: Folder that holds MNIST/raw. Default: the variable MNIST_ROOT, else mnist_data.
        batch_size: Images in one iteration, over all devices together.
        block_size: Mini-batches per training_step. auto: as many as the Trainer's counts and
            callbacks allow; N: at most N, and callbacks hear of blocks only. Results do not
            change.
        val_size: Images held out of the training set for validation.
        eval_batch_size: Images in one step of validation or test.
        seed: Decides the validation split and the order of every epoch.
        verify: Whether the files must be exactly MNIST's; false accepts any set in its layout.
        digits: The label of each class. For another set, fit reads them from the files.
        size: Height and width of the images in the files, which are scaled to fit 28x28. For
            another set, fit reads them from the files.

    Raises:
        ValueError: a size is not positive, or digits are not two or more different ones.
        DatasetError: in prepare_data or setup, if files are missing or unusable, or if val_size
            leaves no images to train on.
    """

    longest_block: ClassVar[int] = 100
    """Mini-batches in a block unless fewer are asked for; on a GPU it may be more."""

    def __init__(
        self,
        root: str | None = None,
        batch_size: int = 100,
        block_size: int | Literal["auto"] = "auto",
        val_size: int = 0,
        eval_batch_size: int = 1000,
        seed: int = 0,
        *,
        verify: bool = True,
        digits: tuple[int, ...] = TEN,
        size: tuple[int, int] = (SIZE, SIZE),
    ) -> None:
        super().__init__()
        if len({*digits}) != len(digits) or len(digits) < 2 or not {*digits} <= {*range(256)}:
            raise ValueError(
                f"digits must be two or more different ones of 0 to 255, got {list(digits)}"
            )
        self.digits = digits
        self.size = size
        check_positive(batch_size=batch_size, eval_batch_size=eval_batch_size, size=min(size))
        if block_size != "auto":
            check_positive(block_size=block_size)
        if val_size < 0:
            raise ValueError(f"val_size must be 0 or more, got {val_size}")
        self.root = source.resolve_root(root)
        self.batch_size = batch_size
        self.block_size = block_size
        self.val_size = val_size
        self.eval_batch_size = eval_batch_size
        self.seed = seed
        self.verify = verify
        self._is_prepared = False
        self._counts: Counts | None = None

    def __str__(self) -> str:
        """Describes the folder of the data and how it is loaded."""
        sizes = f"batch_size={self.batch_size}, val_size={self.val_size}, seed={self.seed}"
        return f"{type(self).__name__}(root={str(self.root)!r}, {sizes})"

    def prepare_data(self) -> None:
        """Downloads missing files; Lightning calls this in one process of each machine."""
        if self._is_prepared:  # for training, when called again for the test
            return
        source.ensure(self.root, verify=self.verify)
        if not self.verify:
            # Unchecked so far, and errors in the test images would show only after the training.
            self.load(train=True)
            self.load(train=False)
        if self.size != (SIZE, SIZE):
            print("Images of {}x{} pixels are scaled to fit 28x28.".format(*self.size), flush=True)
        self._is_prepared = True

    def setup(self, stage: str) -> None:
        """Reads the halves of the data set that `stage` (fit, validate, test, predict) needs."""
        if stage in ("fit", "validate") and not hasattr(self, "train_images"):
            self.train_images, self.train_labels = self.load(train=True)
            self._split()
        if stage in ("test", "predict") and not hasattr(self, "test_images"):
            self.test_images, self.test_labels = self.load(train=False)

    def load(self, *, train: bool) -> tuple[Tensor, Tensor]:
        """Returns images (N, 28, 28) uint8 and classes (N,) int64, from 0, of one half."""
        images, labels = source.load(
            self.root, train=train, verify=self.verify, known=self.digits, size=self.size
        )
        classes = torch.zeros(256, dtype=torch.int64)
        classes[list(self.digits)] = torch.arange(len(self.digits))
        return scaled(images), classes[labels.long()]

    def _split(self) -> None:
        count = len(self.train_images)
        if self.val_size >= count:
            raise source.DatasetError(f"val_size must be below {count}, got {self.val_size}")
        shuffled = torch.from_numpy(np.random.default_rng((self.seed, 0)).permutation(count))
        self.train_index = shuffled[: count - self.val_size]
        self.val_index = shuffled[count - self.val_size :]

    def reseeded(self, seed: int) -> Self:
        """Returns a copy that shares the images, set up for fit with another seed's split."""
        other = copy.copy(self)
        other.seed = seed
        other._split()
        return other

    def pixel_deviation(self) -> Tensor:
        """Returns the standard deviation of each pixel over the training images, (H, W) float32."""
        pixels = self.train_images[self.train_index].long()
        # Sums of integers are exact: the same to the bit for any order of the images.
        total, squares = pixels.sum(0).double(), pixels.square().sum(0).double()
        return (squares / len(pixels) - (total / len(pixels)).square()).clamp(min=0).sqrt().float()

    def order(self) -> EpochOrder:
        """Returns the order of an epoch: each training image once, shuffled."""
        return EpochOrder(self.train_index, self.seed)

    def train_dataloader(self) -> BlockLoader:
        """Returns a loader of this rank's part of every mini-batch."""
        rank, world_size = self._rank()
        order: EpochOrder | InOrder = self.order()
        if self.batch_size > len(order):
            rank_zero_info(
                f"batch_size {self.batch_size:,} is more than the {len(order):,} images of an "
                "epoch, which is one iteration."
            )
        if self.trainer is not None and self.trainer.overfit_batches > 0:  # type: ignore[attr-defined]
            order = InOrder(order.indices())
        return BlockLoader(
            *self._on_device(self.train_images, self.train_labels),
            order,
            batch_size=self.batch_size,
            block_size=self._blocks(-(-len(order) // self.batch_size)),
            rank=rank,
            world_size=world_size,
            iterations_left=self._iterations_left,
        )

    def _blocks(self, iterations: int) -> int:
        """Returns the block size for an epoch of `iterations` and logs why, if it is reduced.

        Without a Trainer its counts are unknown, and auto means blocks of one mini-batch.
        """
        is_auto = self.block_size == "auto"
        longest = self.longest_block if self.block_size == "auto" else self.block_size
        if self.trainer is None:
            return 1 if is_auto else longest
        if is_auto:
            longest = longest_on_device(self.trainer, longest)
        is_first = self._counts is None
        self._counts = self._counts or Counts(self.trainer)
        size, why = self._counts.translate(iterations, longest, may_be_heard=is_auto)
        if why and is_first:
            rank_zero_info(
                f"Blocks of {size}, not of {longest} mini-batches, which is slower: {why}"
            )
        return size

    def teardown(self, stage: str) -> None:
        """Restores the Trainer's counts."""
        if self._counts is not None:
            self._counts.restore()
            self._counts = None

    def on_exception(self, exception: BaseException) -> None:
        """Restores the Trainer's counts."""
        self.teardown("fit")

    def val_dataloader(self) -> BlockLoader | list[BlockLoader]:
        """Returns a loader of the images held out; an empty list if there are none."""
        if not self.val_size:
            return []
        return self._evaluation(self.train_images, self.train_labels, self.val_index)

    def test_dataloader(self) -> BlockLoader:
        """Returns a loader of the test images in the order of the file."""
        index = torch.arange(len(self.test_images))
        return self._evaluation(self.test_images, self.test_labels, index)

    def _evaluation(self, images: Tensor, labels: Tensor, index: Tensor) -> BlockLoader:
        # Each rank takes a contiguous part, so that every image is evaluated once.
        rank, world_size = self._rank()
        part = InOrder(index.tensor_split(world_size)[rank])
        held = self._on_device(images, labels)
        return BlockLoader(*held, part, batch_size=self.eval_batch_size)

    def _on_device(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Moves the data to the model's device, once; during training only indices move."""
        if self.trainer is None:
            return images, labels
        device = self.trainer.strategy.root_device
        return images.to(device), labels.to(device)

    def _iterations_left(self) -> int:
        if self.trainer is None:
            return sys.maxsize
        limit = sys.maxsize if self.trainer.max_steps == -1 else self.trainer.max_steps
        return limit - self.trainer.global_step

    def _rank(self) -> tuple[int, int]:
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size


def check_positive(**sizes: int) -> None:
    """Raises a ValueError that names the first size below 1, or too large for any array."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be 1 or more, got {size}")
        if size > sys.maxsize:
            raise ValueError(f"{name} must be at most {sys.maxsize}, got {size}")
