"""The callback that adds settings, layout and figures of a run to TensorBoard."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from callbacks.results import Results
from callbacks.tensorboard import TensorBoard
from models import nets
from project import drawing
from project.dashboard import costly, hparams
from project.dashboard.costly import true_classes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from project.dashboard.figures import Mistake

Amount = Literal["none", "cheap", "full"]

# The most important charts, each with a line for every run.
LAYOUT = {
    "overview": {
        "training loss": ["Multiline", ["train/loss"]],
        "validation accuracy": ["Multiline", ["val/accuracy"]],
        "test accuracy": ["Multiline", ["test/accuracy"]],
        "milliseconds per iteration": ["Multiline", ["time/ms_per_iteration"]],
        "learning rate": ["Multiline", ["train/learning_rate"]],
    }
}


class Dashboard(Callback):
    """Adds the learning rate, a layout, the run's settings beside its results, and figures.

    Figures are drawn when the test is over, so they cost the training nothing.

    Args:
        amount: amount of figures: none, cheap, or full, which adds histograms, the graph, the
            projector and, for two digits, precision over recall.
        results: the `Results` callback of the same run.
    """

    reads_blocks = True

    def __init__(self, amount: Amount, results: Results) -> None:
        self.amount = amount
        self.results = results
        self._probabilities: list[Tensor] = []
        self._gradients: dict[str, Tensor] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lays out the charts."""
        if logger := _logger(trainer):
            logger.experiment.add_custom_scalars(LAYOUT)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Logs the next learning rate, once per block."""
        if logger := _logger(trainer):
            for rate in _rates(trainer)[:1]:
                logger.experiment.add_scalar("train/learning_rate", rate, trainer.global_step)
        if self.amount == "full":  # Lightning clears them before validation
            self._gradients = {
                name: parameter.grad
                for name, parameter in pl_module.named_parameters()
                if parameter.grad is not None
            }

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the gradients of the last iteration."""
        if logger := _logger(trainer):
            for name, gradient in self._gradients.items():
                with drawing.optional(f"the histogram gradients/{name}"):
                    logger.experiment.add_histogram(
                        f"gradients/{name}", gradient, trainer.global_step
                    )

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any
    ) -> None:
        """Keeps the predicted probabilities."""
        if self.amount != "none" and _logger(trainer):
            self._probabilities.append(pl_module.probabilities(outputs).cpu())  # type: ignore[operator]

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Adds settings, results and figures, in one process only."""
        logger = _logger(trainer)
        record = self.results.record
        if logger is None or record is None:
            return
        data = getattr(trainer, "datamodule")  # noqa: B009
        if getattr(trainer, "enable_autolog_hparams"):  # noqa: B009
            hparams.write(logger, {**pl_module.hparams, "batch_size": data.batch_size}, record)
        if self.amount == "none":
            return
        step, writer = trainer.global_step, logger.experiment
        probabilities = torch.cat(self._probabilities)
        with drawing.optional("the figures"), drawing.default_style():
            for tag, draw in self._figures(pl_module, data, probabilities):
                with drawing.optional(f"the figure {tag}"):
                    writer.add_figure(tag, draw(), step, close=False)
        if self.amount == "full":
            with drawing.optional("what --figures full adds"):
                costly.write(writer, pl_module, data, probabilities, step)
        writer.flush()

    def _figures(
        self, module: LightningModule, data: Any, probabilities: Tensor
    ) -> Iterator[tuple[str, Callable[[], Figure]]]:
        # Matplotlib takes half a second to import, and a run that draws nothing can do without.
        from project.dashboard import figures

        counts: Any = module.confusion
        yield "test/confusion", partial(figures.confusion_matrix, counts.cpu(), data.digits)
        mistakes = list(_mistakes(data, probabilities))
        yield "test/mistakes", partial(figures.gallery, mistakes, len(probabilities))
        net = module.net
        if isinstance(net, nets.LeNet5):
            yield "weights/C1", partial(figures.first_kernels, net)
            yield "weights/C3", partial(figures.table_kernels, net)
            image = data.test_images[0].unsqueeze(0).to(net.c1.weight) / 255
            yield "weights/feature_maps", partial(figures.feature_maps, net, image)
        if isinstance(net, nets.LinearClassifier):
            yield "weights/pixels", partial(figures.weight_picture, net, data.digits)


def _rates(trainer: Trainer) -> list[float]:
    """Returns the learning rates of all parameter groups that have one."""
    groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
    return [group["lr"] for group in groups if "lr" in group]


def _logger(trainer: Trainer) -> TensorBoard | None:
    logger = trainer.logger
    return logger if trainer.is_global_zero and isinstance(logger, TensorBoard) else None


def _mistakes(data: Any, probabilities: Tensor) -> Iterator[Mistake]:
    """Yields the mistakes among the first test images, which are those that this rank has seen."""
    from project.dashboard.figures import Mistake

    confidence, predicted = probabilities.max(1)
    true = true_classes(data)[: len(predicted)]
    for n in (predicted != true).nonzero().flatten().tolist():
        names = data.digits[int(true[n])], data.digits[int(predicted[n])]
        yield Mistake(data.test_images[n].cpu(), *names, float(confidence[n]))
