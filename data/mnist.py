"""All ten digits: 60,000 images to learn from, 10,000 to test on."""

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
    """MNIST, held once in memory as bytes and handed out in blocks of mini-batches.

    Args:
        root: Folder that holds MNIST/raw. Default: the variable MNIST_ROOT, else mnist_data.
        batch_size: Images in one iteration, over all devices together.
        block_size: Iterations in one call of training_step, auto or at most so many. By auto there
            are many, or as few as those ask for who count mini-batches or listen to each. It
            changes the speed, how often a listener is called, and nothing else.
        val_size: Images held out of the training set for validation.
        eval_batch_size: Images in one step of validation or test.
        seed: Decides the validation split and the order of every epoch.
        verify: Whether the files must be MNIST's, to the bit. With false, images and labels of
            another set in MNIST's layout are taken as they are.
        digits: The labels in the files, one for each class. Of another set, fit reads them there.
        size: Height and width of the images in the files, which are scaled to fit 28x28. Of another
            set, fit reads them there.

    Raises:
        ValueError: a size that is not positive, or digits that are not two or more different ones.
        DatasetError: in prepare_data or setup, where the files cannot be used or had, or where
            val_size leaves nothing to learn from.
    """

    longest_block: ClassVar[int] = 100
    """Mini-batches in a block where nothing asks for fewer; on a GPU may be more."""

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
        """Where it is and how it is handed out."""
        sizes = f"batch_size={self.batch_size}, val_size={self.val_size}, seed={self.seed}"
        return f"{type(self).__name__}(root={str(self.root)!r}, {sizes})"

    def prepare_data(self) -> None:
        """Fetches what is missing; Lightning calls this in one process of each machine."""
        if self._is_prepared:  # for the training; and now comes the test
            return
        source.ensure(self.root, verify=self.verify)
        if not self.verify:
            # Nobody has looked into them yet, and the test images would come after the training.
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
        """Images (N, 28, 28) uint8 and classes (N,) int64, from 0, of one half of the data set."""
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
        """The same images, set up for fit, with the split and the order of another seed."""
        other = copy.copy(self)
        other.seed = seed
        other._split()
        return other

    def pixel_deviation(self) -> Tensor:
        """The standard deviation of each pixel over the training images, (H, W) float32."""
        pixels = self.train_images[self.train_index].long()
        # Sums of integers are exact: the same to the bit for any order of the images.
        total, squares = pixels.sum(0).double(), pixels.square().sum(0).double()
        return (squares / len(pixels) - (total / len(pixels)).square()).clamp(min=0).sqrt().float()

    def order(self) -> EpochOrder:
        """How an epoch goes through the training images: each once, shuffled."""
        return EpochOrder(self.train_index, self.seed)

    def train_dataloader(self) -> BlockLoader:
        """This rank's part of every mini-batch."""
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
        """How many mini-batches a block has, in an epoch of so many; says why, where they are few.

        Without a Trainer nobody knows who counts, and a block of auto is one mini-batch.
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
        """Gives the Trainer its counts back."""
        if self._counts is not None:
            self._counts.restore()
            self._counts = None

    def on_exception(self, exception: BaseException) -> None:
        """Likewise."""
        self.teardown("fit")

    def val_dataloader(self) -> BlockLoader | list[BlockLoader]:
        """The images held out; no loader at all where there are none."""
        if not self.val_size:
            return []
        return self._evaluation(self.train_images, self.train_labels, self.val_index)

    def test_dataloader(self) -> BlockLoader:
        """The test images in the order of the file."""
        index = torch.arange(len(self.test_images))
        return self._evaluation(self.test_images, self.test_labels, index)

    def _evaluation(self, images: Tensor, labels: Tensor, index: Tensor) -> BlockLoader:
        # Each rank takes its own stretch: every image once, however many ranks there are.
        rank, world_size = self._rank()
        part = InOrder(index.tensor_split(world_size)[rank])
        held = self._on_device(images, labels)
        return BlockLoader(*held, part, batch_size=self.eval_batch_size)

    def _on_device(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Where the model is, once: what moves during the training are indices."""
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
