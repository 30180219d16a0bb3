"""The data module of two digits: by default 4 (label -1) against 9 (label +1)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from data import source
from data.blocks import EpochOrder
from data.mnist import MNISTDataModule, check_positive
from data.scaling import SIZE, scaled
from data.source import DatasetError


class FourNineDataModule(MNISTDataModule):
    """The images of two digits, raw pixels 0..255, drawn with replacement.

    Args:
        digits: The digit with label -1, then the digit with label +1.
        root: Folder that holds MNIST/raw. Default: the variable MNIST_ROOT, else mnist_data.
        iterations: Iterations in one epoch; each draws batch_size images with replacement.
        batch_size: Images in one iteration, over all devices together.
        block_size: Mini-batches per training_step. auto: as many as the Trainer's counts and
            callbacks allow; N: at most N, and callbacks hear of blocks only. Results do not
            change.
        val_size: Images held out of the training set for validation.
        eval_batch_size: Images in one step of validation or test.
        seed: Decides the validation split and the images drawn in every epoch.
        verify: Whether the files must be exactly MNIST's; false accepts any set in its layout.
        size: Height and width of the images in the files, which are scaled to fit 28x28. For
            another set, fit reads them from the files.

    Raises:
        ValueError: digits are not two different ones of 0 to 9, or a size is out of range.
        DatasetError: in prepare_data or setup, as in the base class, or if one of the two digits
            does not occur in training, or neither in test.
    """

    longest_block: ClassVar[int] = 10_000

    def __init__(
        self,
        digits: tuple[int, int] = (4, 9),
        root: str | None = None,
        iterations: int = 50_000,
        batch_size: int = 1,
        block_size: int | Literal["auto"] = "auto",
        val_size: int = 0,
        eval_batch_size: int = 1000,
        seed: int = 0,
        *,
        verify: bool = True,
        size: tuple[int, int] = (SIZE, SIZE),
    ) -> None:
        super().__init__(
            root, batch_size, block_size, val_size, eval_batch_size, seed, verify=verify, size=size
        )
        check_positive(iterations=iterations)
        negative, positive = digits
        if negative == positive or not {negative, positive} <= set(range(10)):
            raise ValueError(f"digits must be two different ones of 0 to 9, got {list(digits)}")
        self.digits = (negative, positive)
        self.iterations = iterations

    def load(self, *, train: bool) -> tuple[Tensor, Tensor]:
        """Returns images (N, 28, 28) uint8 of the two digits and labels (N,) int64, -1 or +1."""
        images, labels = source.load(self.root, train=train, verify=self.verify, size=self.size)
        absent = [digit for digit in self.digits if digit not in labels]
        if absent and (train or len(absent) == 2):
            raise DatasetError(
                f"none of the {len(labels):,} {'training' if train else 'test'} images in "
                f"{self.root} shows a {' or a '.join(map(str, absent))}"
            )
        chosen = (labels == self.digits[0]) | (labels == self.digits[1])
        labels = labels.long()
        signs = torch.where(labels[chosen] == self.digits[1], 1, -1)
        return scaled(images[chosen]), signs

    def order(self) -> EpochOrder:
        """Returns the order of an epoch: training images drawn with replacement."""
        return EpochOrder(self.train_index, self.seed, draws=self.iterations * self.batch_size)
