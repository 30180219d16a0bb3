"""What every experiment shares: the block step, the metrics, the optimizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.plugins.precision import Precision
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor, nn
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from models import progress
from models.kernels import doors

Counts = np.ndarray[Any, np.dtype[np.int64]]
Differentiator = Callable[[Tensor, Tensor, float], Tensor]


class Block(Protocol):
    """K consecutive mini-batches, one after the other, by index into N images."""

    images: Tensor
    """(N, H, W) uint8"""
    labels: Tensor
    """(N,) int64"""
    order: Tensor
    """(n,) int64: this rank's share"""
    sizes: Counts
    """(K,) of this rank's images"""
    totals: Counts
    """(K,) of all ranks' images"""


class Classifier(LightningModule):
    """Trains a network on blocks of mini-batches, by gradient descent.

    A block of K mini-batches is K iterations, exactly those of K = 1: blocks only spread
    Lightning's cost per step. `global_step` counts iterations.

    Args:
        net: maps inputs (B, 1, H, W) to outputs.
        classes: number of classes.
        lr: learning rate.
    """

    confusion: Tensor
    """(classes, classes) counts of the last evaluation, true classes in rows, predicted ones in
    columns."""

    losses_taken: list[Tensor]
    """The loss () of each iteration of the block at hand, which an exception may break off; empty
    where a block is taken whole or not at all."""

    pixels = (28, 28)
    """Height and width of an image."""

    labels: Sequence[int]
    """Those that there may be, ascending: 0 to classes - 1, where a subclass sets no others."""

    def __init__(self, net: nn.Module, classes: int, lr: float) -> None:
        super().__init__()
        if not lr > 0:
            raise ValueError(f"lr must be above 0, got {lr}")
        # Several optimizer steps in one training_step are manual optimization.
        self.automatic_optimization = False
        self.net = net
        self.lr = lr
        self.losses_taken = []
        self.labels = range(classes)
        metrics = MetricCollection(
            {
                "accuracy": MulticlassAccuracy(classes, average="micro"),
                "confusion": MulticlassConfusionMatrix(classes),
                "loss": MeanMetric(),
            },
            compute_groups=False,  # each is updated with arguments of its own
        )
        self.metrics = nn.ModuleDict({"val": metrics.clone(), "test": metrics.clone()})

    def inputs(self, images: Tensor) -> Tensor:
        """Pixels (B, H, W) uint8 -> what the network takes (B, 1, H, W), floating."""
        raise NotImplementedError

    def losses(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """One loss for each image (B,)."""
        raise NotImplementedError

    def classes(self, outputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Predicted and true class of each image, both (B,) int64, counted from 0."""
        raise NotImplementedError

    def probabilities(self, outputs: Tensor) -> Tensor:
        """How probable each class is (B, classes), by the network's outputs."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """The network's outputs for floating inputs x (B, 1, H, W)."""
        outputs: Tensor = self.net(x)
        return outputs

    def training_step(self, block: Block, batch_idx: int) -> dict[str, Any]:
        """Takes one optimizer step for each mini-batch of the block.

        Returns:
            "losses": (K,) the mean loss per image of each iteration, over all ranks.
            "images": how many images all ranks saw.
        """
        self._check(block)
        self.losses_taken = []
        losses = self.trainer.strategy.reduce(self.learn(block), reduce_op="mean")
        return {"losses": losses, "images": int(block.totals.sum())}

    def learn(self, block: Block) -> Tensor:
        """The K iterations of a block, one after the other; returns their losses (K,)."""
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        watched = self._watched()
        step = optimizer.step if watched else optimizer.optimizer.step
        differentiate = self.differentiator(watched=watched)
        batches = block.order.split_with_sizes(block.sizes.tolist())
        rates = self.learning_rates(len(batches)).tolist()
        # Ranks may hold unequal shares; DDP's mean over ranks of these is the global mean.
        shares = (self.trainer.world_size / block.totals).tolist()
        losses = self.losses_taken
        for index, share, rate in zip(batches, shares, rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate
                for parameter in group["params"]:
                    parameter.grad = None
            each = differentiate(*self._batch(block, index), share)
            loss = each.sum() * share
            step()
            losses.append(loss)
            if not watched:
                progress.count_iterations(self.trainer, 1)
        return torch.stack(losses)

    def differentiator(self, *, watched: bool) -> Differentiator:
        """What sets the gradients of an iteration.

        Args:
            watched: whether Lightning has to see the backward pass.

        Returns:
            A function of inputs, labels and a share. It sets every parameter's `grad` to that of
            share times the sum of the losses, and returns the losses (B,) without a graph.
        """
        backward = self.manual_backward if watched else torch.autograd.backward

        def by_autograd(x: Tensor, labels: Tensor, share: float) -> Tensor:
            each: Tensor = self.losses(self(x), labels)
            # The gradient of their weighted sum, with two operators less.
            backward(each, torch.full_like(each, share))
            return each.detach()

        return by_autograd

    def _watched(self) -> bool:
        """Whether anything happens around a backward pass and a step beyond torch's own doing.

        On one device in plain float32 Lightning only calls hooks there, every one of every callback
        in every iteration, which takes 0.3 ms on a laptop whether or not one of them does anything.
        """
        trainer = self.trainer
        plain = (
            type(trainer.strategy) is SingleDeviceStrategy
            and type(trainer.precision_plugin) is Precision
        )
        return not plain or self._is_hooked()

    def _is_hooked(self) -> bool:
        """Whether a hook around a backward pass or a step is overridden, here or in a callback."""
        callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        listeners = [(self, LightningModule), *((callback, Callback) for callback in callbacks)]
        return any(
            is_overridden(hook, listener, parent=base)
            for hook in ("on_before_backward", "on_after_backward", "on_before_optimizer_step")
            for listener, base in listeners
        )

    def learning_rates(self, count: int) -> Tensor:
        """Learning rates of the next iterations, (count,) float64 on the CPU.

        A function of `global_step`, so that a continued run needs no state for it.
        """
        return torch.full((count,), self.lr, dtype=torch.float64)

    def iterations_per_epoch(self) -> int:
        """Mini-batches in one pass through the training set; known while training."""
        return self._loader.iterations

    @property
    def _loader(self) -> progress.Loader:
        loader: progress.Loader = self.trainer.train_dataloader  # type: ignore[assignment]
        return loader

    def on_train_start(self) -> None:
        """Goes on inside an epoch where the loader does."""
        if isinstance(loader := self.trainer.train_dataloader, progress.Loader):
            progress.count_blocks(self.trainer, loader)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Lets a checkpoint say where the training stands, whoever saves it and when."""
        if isinstance(loader := self.trainer.train_dataloader, progress.Loader):
            position = progress.current_position(self.trainer, loader)
            progress.settle(checkpoint["loops"], position)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Understands checkpoints of older versions, and keeps the digits of 64 bits."""
        if self._trainer is not None and self.trainer.precision == "64-true":
            self.double()  # Lightning does so later, when the weights have come through float32
        if "loops" in checkpoint:
            progress.settle_older(checkpoint["loops"])

    def _check(self, block: Block) -> None:
        """Refuses what no version may read: other images and labels than the network is for.

        Raises:
            TypeError: pixels that are no bytes, labels that are not int64.
            ValueError: images of another size, a label that is no class.
        """
        doors.check_images(block.images, self.pixels, block.order)
        doors.check_labels_once(block.labels, self.labels, block.images)

    def _batch(self, block: Block, index: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and labels of the images of `index` (B,)."""
        # index_select, since images[index] takes 20 times as long for bytes.
        images = block.images.index_select(0, index)
        return self.inputs(images), block.labels.index_select(0, index)

    def validation_step(self, block: Block, batch_idx: int) -> None:
        """Counts one block into the validation metrics."""
        self._evaluate(block, "val")

    def test_step(self, block: Block, batch_idx: int) -> Tensor:
        """Counts one block into the test metrics; returns the network's outputs."""
        return self._evaluate(block, "test")

    def predict_step(self, block: Block, batch_idx: int) -> Tensor:
        """The probabilities (n, classes) of one block's images."""
        doors.check_images(block.images, self.pixels, block.order)
        images = block.images.index_select(0, block.order)
        return self.probabilities(self(self.inputs(images)))

    def on_validation_epoch_end(self) -> None:
        """Logs val/accuracy, val/loss and the counts behind them."""
        self._log_metrics("val")

    def on_test_epoch_end(self) -> None:
        """Logs test/accuracy, test/loss and the counts behind them."""
        self._log_metrics("test")

    def _evaluate(self, block: Block, stage: str) -> Tensor:
        self._check(block)
        x, labels = self._batch(block, block.order)
        outputs: Tensor = self(x)
        predicted, true = self.classes(outputs, labels)
        metrics = self._metrics(stage)
        metrics["accuracy"].update(predicted, true)
        metrics["confusion"].update(predicted, true)
        metrics["loss"].update(self.losses(outputs, labels))
        return outputs

    def _log_metrics(self, stage: str) -> None:
        metrics = self._metrics(stage)
        values = metrics.compute()
        metrics.reset()
        confusion = self.confusion = values["confusion"]
        scalars = {
            "accuracy": values["accuracy"],
            "loss": values["loss"],
            "correct": confusion.trace().float(),
            "total": confusion.sum().float(),
            "predicted_classes": (confusion.sum(0) > 0).sum().float(),
        }
        self.log_dict({f"{stage}/{name}": value for name, value in scalars.items()})
        # Lightning's own x-axis counts blocks; everything here is drawn over iterations.
        self.log("step", float(self.global_step))

    def _metrics(self, stage: str) -> MetricCollection:
        metrics = self.metrics[stage]
        assert isinstance(metrics, MetricCollection)
        return metrics

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Plain gradient descent."""
        return torch.optim.SGD(self.parameters(), lr=self.lr)
