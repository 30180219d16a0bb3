"""What TensorBoard shows of a run beyond its curves."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from callbacks import Results, TensorBoard
from models import nets

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Amount = Literal["none", "cheap", "full"]

# The charts one wants first; every run draws its line into each.
LAYOUT = {
    "overview": {
        "training loss": ["Multiline", ["train/loss"]],
        "accuracy": ["Multiline", ["val/accuracy", "test/accuracy"]],
        "milliseconds per iteration": ["Multiline", ["time/ms_per_iteration"]],
        "learning rate": ["Multiline", ["train/learning_rate"]],
    }
}
EMBEDDED = 1000  # digits in the projector


class Dashboard(Callback):
    """Adds the learning rate, a layout, the run's settings beside its results, and figures.

    Figures are drawn when the test is over, so they cost the training nothing.

    Args:
        amount: of figures: none, cheap, or full, which adds histograms, the graph, the projector
            and, of two digits, precision over recall.
        results: of the same run.
    """

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
        """Logs the learning rate that comes next, once a block."""
        if logger := _logger(trainer):
            rate = float(pl_module.learning_rates(1)[0])  # type: ignore[operator]
            logger.experiment.add_scalar("train/learning_rate", rate, trainer.global_step)
        if self.amount == "full":  # Lightning drops them before it validates
            self._gradients = {
                name: parameter.grad
                for name, parameter in pl_module.named_parameters()
                if parameter.grad is not None
            }

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the gradients of the last iteration."""
        if logger := _logger(trainer):
            for name, gradient in self._gradients.items():
                tag = f"gradients/{name}"
                logger.experiment.add_histogram(tag, gradient, trainer.global_step)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any
    ) -> None:
        """Keeps what was predicted."""
        if self.amount != "none" and _logger(trainer):
            self._probabilities.append(pl_module.probabilities(outputs).cpu())  # type: ignore[operator]

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws everything, in one process only."""
        logger = _logger(trainer)
        record = self.results.record
        if logger is None or record is None:
            return
        write_hparams(logger, dict(pl_module.hparams), record)
        if self.amount == "none":
            return
        step, writer = trainer.global_step, logger.experiment
        data = getattr(trainer, "datamodule")  # noqa: B009
        probabilities = torch.cat(self._probabilities)
        for tag, figure in self._figures(pl_module, data, probabilities):
            writer.add_figure(tag, figure, step, close=False)
        if self.amount == "full":
            write_more(writer, pl_module, data, probabilities, step)
        writer.flush()

    def _figures(
        self, module: LightningModule, data: Any, probabilities: Tensor
    ) -> Iterator[tuple[str, Figure]]:
        # Matplotlib takes half a second to import, and a run that draws nothing can do without.
        from project import figures

        counts: Any = module.confusion
        yield "test/confusion", figures.confusion_matrix(counts.cpu(), data.digits)
        mistakes = list(_mistakes(data, probabilities))
        yield "test/mistakes", figures.gallery(mistakes, len(probabilities))
        net = module.net
        if isinstance(net, nets.LeNet5):
            yield "model/C1", figures.first_kernels(net)
            yield "model/C3", figures.table_kernels(net)
            image = data.test_images[0].unsqueeze(0).to(net.c1.weight) / 255
            yield "model/feature_maps", figures.feature_maps(net, image)
        if isinstance(net, nets.LinearClassifier):
            yield "model/weights", figures.weight_picture(net, data.digits)


def _logger(trainer: Trainer) -> TensorBoard | None:
    logger = trainer.logger
    return logger if trainer.is_global_zero and isinstance(logger, TensorBoard) else None


def _classes(data: Any) -> Tensor:
    """The true class of each test image, counted from 0."""
    labels: Tensor = data.test_labels.cpu()
    return (labels > 0).long() if len(data.digits) == 2 else labels


def _mistakes(data: Any, probabilities: Tensor) -> Iterator[Any]:
    """Those among the first of the test images: the ones that this rank has seen."""
    from project.figures import Mistake

    confidence, predicted = probabilities.max(1)
    true = _classes(data)[: len(predicted)]
    for n in (predicted != true).nonzero().flatten().tolist():
        names = data.digits[int(true[n])], data.digits[int(predicted[n])]
        yield Mistake(data.test_images[n].cpu(), *names, float(confidence[n]))


def write_hparams(logger: TensorBoard, settings: dict[str, Any], record: dict[str, Any]) -> None:
    """Puts the run into the HPARAMS table: its settings, and how it ended.

    SummaryWriter.add_hparams would open a run of its own for that.
    """
    from torch.utils.tensorboard.summary import hparams

    writer = logger.experiment
    metrics = {
        "test/accuracy": record["test"]["accuracy"],
        "test/loss": record["test"]["loss"],
        "time/train_seconds": record["seconds"]["train"],
        "model/parameters": record["parameters"],
    }
    writer.add_scalar("model/parameters", record["parameters"], record["iterations"])
    plain = {
        name: value if isinstance(value, bool | int | float | str) else str(value)
        for name, value in settings.items()
        if not name.startswith("_")  # Lightning's own
    }
    about = {"config": record["config"], "seed": record["seed"], **plain}
    for summary in hparams(about, metrics):  # type: ignore[no-untyped-call]
        writer.file_writer.add_summary(summary)


def write_more(writer: Any, module: Any, data: Any, probabilities: Tensor, step: int) -> None:
    """What takes time or room: histograms, the graph, the projector, precision over recall."""
    for name, parameter in module.named_parameters():
        writer.add_histogram(f"weights/{name}", parameter, step)
    net = copy.deepcopy(module.net).cpu().eval()
    images = data.test_images[:EMBEDDED].cpu()
    inputs = module.inputs(images)
    if isinstance(net, nets.LeNet5):
        for layer in (net.c1, net.c3):
            layer.backend = "composite"  # operators that the graph can name
        with torch.no_grad():
            writer.add_embedding(
                net.embed(inputs), data.test_labels[:EMBEDDED].tolist(), inputs, step, "F6"
            )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's about its own tracer, and of shapes as numbers
        writer.add_graph(net, inputs[:1])
    if len(data.digits) == 2:
        true = _classes(data)[: len(probabilities)]
        writer.add_pr_curve("test/precision_recall", true, probabilities[:, 1], step)
