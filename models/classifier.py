"""The base class of every experiment: training on blocks, the metrics, the optimizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torchmetrics import MetricCollection

from models import ends, learners, metrics, progress, ranks, schedules, transfer
from models.distortion import distort, draw
from models.epoch_loss import EpochLoss
from models.kernels import doors
from models.kernels.distortion import NONE, Distortion
from models.kernels.update import PLAIN, Update
from models.learners import Block, Learner, Run
from models.schedules import Length, Schedule


class Classifier(LightningModule):
    """Trains a network on blocks of mini-batches, by gradient descent.

    A block of K mini-batches is K iterations, the same as in K blocks of one: blocks only amortise
    Lightning's cost per step. `global_step` counts iterations.

    Args:
        net: maps inputs (B, 1, H, W) to outputs.
        classes: number of classes.
        lr: highest learning rate.
        update: momentum and weight decay.
        schedule: the learning rate over the training.
        distortion: limits of the distortion of training images, drawn anew in each iteration.

    Raises:
        ValueError: a value is out of range.
    """

    confusion: Tensor
    """(true classes, predicted classes) confusion matrix of the last evaluation."""

    losses_taken: list[Tensor]
    """The loss () of each iteration of the current block so far, in case an exception interrupts
    it; empty if the learner takes a block in one call."""

    learners: ClassVar[tuple[type[Learner], ...]] = ()
    """Learners for this class, the fastest first; each checks what a derived class changes."""

    kind: ClassVar[type[nn.Module]]
    """The class of the network that the learners compute."""

    learner: str | None = None
    """Name of the current or last learner."""

    why_not_faster = ""
    """Why the fastest learner is not used."""

    teachers = ""
    """Checkpoints of networks whose predictions replace the labels as targets; none by default."""

    received = 0
    """Number of a signal that this process has received, sent to all ranks; set by a callback."""

    pixels = (28, 28)
    """Height and width of an image."""

    labels: Sequence[int]
    """The possible labels, ascending: 0 to classes - 1, unless a subclass sets others."""

    def __init__(
        self,
        net: nn.Module,
        classes: int,
        lr: float,
        *,
        update: Update = PLAIN,
        schedule: Schedule = schedules.constant,
        distortion: Distortion = NONE,
    ) -> None:
        super().__init__()
        if not 0 < lr < float("inf"):
            raise ValueError(f"lr must be above 0, and finite, got {lr}")
        update.check()
        distortion.check()
        # Several optimizer steps in one training_step need manual optimization.
        self.automatic_optimization = False
        self.net = net
        self.lr = lr
        self.update = update
        self.schedule = schedule
        self.distortion = distortion
        self.losses_taken = []
        # Learners that failed to start in this training, and why.
        self.failed: dict[type[Learner], str] = {}
        self._epoch_loss = EpochLoss()
        self._learner: Learner | None = None
        self._run: Run | None = None
        self._length: Length | None = None
        self._end_before: int | None = None
        self.labels = range(classes)
        self.metrics = metrics.of_stages(classes)

    def inputs(self, images: Tensor) -> Tensor:
        """Pixels (B, H, W) from 0 to 255 -> network inputs (B, 1, H, W), floating point."""
        raise NotImplementedError

    def losses(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The loss of each image (B,)."""
        raise NotImplementedError

    def targets(self, x: Tensor, labels: Tensor) -> Tensor:
        """The targets of `losses` for training inputs x; by default the labels (B,)."""
        return labels

    def predicted_and_true(self, outputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Predicted and true class of each image, both (B,) int64, counted from 0."""
        raise NotImplementedError

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Class probabilities (B, classes) for the network's outputs."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """The network's outputs for floating inputs x (B, 1, H, W)."""
        outputs: Tensor = self.net(x)
        return outputs

    def training_step(self, block: Block, batch_idx: int) -> dict[str, Any]:
        """Takes one optimizer step for each mini-batch of the block.

        Returns:
            "losses": (K,) the mean loss per image of each iteration, over all ranks.
            "loss": () their mean.
            "images": the number of images, over all ranks.
            "signals": (NSIG,) above 0 for each signal that a rank has `received`.
        """
        self._check(block)
        self.losses_taken = []
        before, count = self.global_step, len(block.sizes)
        # There is no learner yet if a subclass overrides on_fit_start.
        if (learner := self._learner) is None or not learner.is_current():
            learner = self._choose(self._run or learners.run_of(self))
        losses = learner(block, self.learning_rates(count))
        # Count the steps that Lightning has not seen.
        progress.count_iterations(self.trainer, before + count - self.global_step)
        progress.count_logs(self.trainer)
        self._show_rate()
        assert self._run is not None
        losses, signals = ranks.told(losses, self.received, self._run, self.trainer)
        loss, images = losses.mean(), int(block.totals.sum())
        self._epoch_loss.add(self, loss, images)
        return {"losses": losses, "loss": loss, "images": images, "signals": signals}

    def _show_rate(self) -> None:
        """Writes the rate of the next iteration to the optimizer, for callbacks that read it."""
        if self._run is not None and self._run.is_scheduled:
            rate = float(self.learning_rates(1)[0])
            for group in self.trainer.optimizers[0].param_groups:
                group["lr"] = rate

    def on_fit_start(self) -> None:
        """Chooses the learner, which compiles or records here, so that this counts as set-up."""
        self.failed = {}
        self._choose(learners.run_of(self))

    def on_fit_end(self) -> None:
        """Releases the learner, since a CUDA graph has memory of its own."""
        self._learner = self._run = None

    def _choose(self, run: Run) -> Learner:
        self._learner, self._run, self._length = None, run, None
        self._learner, self.why_not_faster = learners.start(self, run)
        self.learner = self._learner.name
        return self._learner

    def learning_rates(self, count: int) -> Tensor:
        """Learning rates of the next iterations, (count,) float64 on the CPU.

        A function of `global_step`, so that a continued run needs no state for it.

        Raises:
            ValueError: the schedule needs an end, and the training has none.
        """
        iterations = self.global_step + torch.arange(count, dtype=torch.float64)
        # Cached for an epoch, since asking the Trainer takes as long as a block of small steps.
        if self._length is None or self._trainer is None:
            self._length = self._length_of_training()
        return self.lr * self.schedule(iterations, self._length)

    def _length_of_training(self) -> Length:
        if self._trainer is None:
            return Length(1, None)
        return ends.length_of(self.trainer, self.iterations_per_epoch())

    def iterations_per_epoch(self) -> int:
        """Mini-batches in an epoch, up to `limit_train_batches`; known only during a training."""
        return progress.iterations_per_epoch(self.trainer)

    def on_train_start(self) -> None:
        """Sets the counters to the position of the loader, and chooses the learner again.

        Raises:
            MisconfigurationException: data of another kind, or a schedule that needs an end for a
                training that has none.
        """
        progress.begin(self.trainer)
        try:
            self.learning_rates(1)
        except ValueError as error:
            raise MisconfigurationException(str(error)) from error
        length = self._length_of_training()
        ends.warn_of_another(self.schedule, self.global_step, self._end_before, length)
        ends.say_where_it_stops(self.schedule, self.trainer.max_steps, length)
        self._show_rate()
        self._choose_again()

    def on_train_epoch_start(self) -> None:
        """Chooses the learner again, in case something was hooked, frozen or pruned meanwhile."""
        self._length = None
        self._choose_again()

    def on_train_epoch_end(self) -> None:
        """Refuses an overridden training_step that has taken no optimizer step in an epoch."""
        if not self.global_step:
            raise MisconfigurationException(
                f"training_step of {type(self).__name__} takes no step of its optimizer: what it "
                "returns is not differentiated here; override losses, or call manual_backward and "
                "self.optimizers().step()"
            )

    def _choose_again(self) -> None:
        if self._run is None:
            return
        run = learners.run_of(self)
        # The optimizer holds the schedule's rate by now; groups added later have their own.
        is_one = run.optimizer is not None and len(run.optimizer.param_groups) == 1
        run = run._replace(is_scheduled=self._run.is_scheduled and (run.is_scheduled or is_one))
        known = self._learner
        is_same = known is not None and known.is_current() and run == self._run
        if not is_same or learners.choose(self, run).learner is not type(known):
            self._choose(run)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Stores the position of the training, whichever hook saves the checkpoint."""
        if isinstance(loader := self.trainer.train_dataloader, progress.Loader):
            checkpoint["last_iteration"] = self._length_of_training().total
            position = progress.current_position(self.trainer, loader)
            progress.settle(checkpoint["loops"], position)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Reads checkpoints of older versions too, and keeps the precision of float64 weights."""
        if self._trainer is not None and self.trainer.precision == "64-true":
            self.double()  # Lightning does so later, after loading the weights as float32
        self._end_before = checkpoint.get("last_iteration")
        if "loops" in checkpoint:
            progress.settle_older(checkpoint["loops"])

    # Not the public hook, which is for users; Lightning warns of it beside a data module.
    def _apply_batch_transfer_handler(self, batch: Any, *args: Any, **options: Any) -> Any:
        """Reads the order of a block before its transfer; on a GPU that would synchronise."""
        moved = super()._apply_batch_transfer_handler(batch, *args, **options)
        transfer.follow(self, batch, moved)
        return moved

    def _check(self, block: Block) -> None:
        """Refuses images and labels that do not fit the network.

        Raises:
            TypeError: pixels that are not bytes, labels that are not int64.
            ValueError: images of another size, a label that is not a class.
        """
        doors.check_images(block.images, self.pixels, block.order)
        doors.check_labels_once(block.labels, self.labels, block.images)

    def draw(self, block: Block, first: int = 0, end: int | None = None) -> Tensor | None:
        """Random numbers for some mini-batches of a block, to distort them by; or None."""
        if not any(self.distortion):
            return None
        totals, starts, sizes = (p[first:end] for p in (block.totals, block.starts, block.sizes))
        seed, iteration = torch.initial_seed(), self.global_step + first
        return draw(seed, iteration, totals, starts, sizes, self.distortion.numbers)

    def batch(
        self, block: Block, index: Tensor, numbers: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Inputs and labels of the images `index` (B,), distorted by numbers (B, ...) if given."""
        # index_select, since images[index] takes 20 times as long for bytes.
        images = block.images.index_select(0, index)
        if numbers is not None:
            images = distort(images.to(self.dtype), self.distortion, numbers)
        return self.inputs(images), block.labels.index_select(0, index)

    def validation_step(self, block: Block, batch_idx: int) -> None:
        """Adds one block to the validation metrics."""
        self._evaluate(block, "val")

    def test_step(self, block: Block, batch_idx: int) -> Tensor:
        """Adds one block to the test metrics; returns the network's outputs."""
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
        x, labels = self.batch(block, block.order)
        outputs: Tensor = self(x)
        collection = self._metrics(stage)
        collection["confusion"].update(*self.predicted_and_true(outputs, labels))
        collection["loss"].update(self.losses(outputs, labels))
        return outputs

    def evaluated(self, stage: str) -> dict[str, Tensor]:
        """Accuracy, loss and the counts behind them since the last call; sets `confusion`."""
        collection = self._metrics(stage)
        values = collection.compute()
        with torch.inference_mode(mode=False):  # or a training could not count validations in place
            collection.reset()
        self.confusion = values["confusion"]
        return metrics.scalars(values)

    def _log_metrics(self, stage: str) -> None:
        for name, value in self.evaluated(stage).items():
            is_shown = stage == "val" and name in ("accuracy", "loss")
            self.log(f"{stage}/{name}", value, prog_bar=is_shown)
        # Lightning's own x-axis counts blocks; everything here is drawn over iterations.
        self.log("step", float(self.global_step))

    def _metrics(self, stage: str) -> MetricCollection:
        collection = self.metrics[stage]
        assert isinstance(collection, MetricCollection)
        return collection

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """SGD with the settings of `update`."""
        return torch.optim.SGD(self.parameters(), lr=self.lr, **self.update._asdict())
