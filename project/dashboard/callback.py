"""The callback that adds to TensorBoard what a run has beyond its curves."""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from callbacks.results import Results
from callbacks.tensorboard import TensorBoard
from models import nets
from project import drawing
from project.experiments import EXPERIMENTS

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
# Of the HPARAMS table, which sorts its columns by name and shows the first five.
FIRST_COLUMNS = ("c3", "config", "loss", "lr", "seed")
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
                with drawing.optional(f"the histogram gradients/{name}"):
                    logger.experiment.add_histogram(
                        f"gradients/{name}", gradient, trainer.global_step
                    )

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
        data = getattr(trainer, "datamodule")  # noqa: B009
        write_hparams(logger, {**pl_module.hparams, "batch_size": data.batch_size}, record)
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
                write_more(writer, pl_module, data, probabilities, step)
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
            yield "model/C1", partial(figures.first_kernels, net)
            yield "model/C3", partial(figures.table_kernels, net)
            image = data.test_images[0].unsqueeze(0).to(net.c1.weight) / 255
            yield "model/feature_maps", partial(figures.feature_maps, net, image)
        if isinstance(net, nets.LinearClassifier):
            yield "model/weights", partial(figures.weight_picture, net, data.digits)


def _logger(trainer: Trainer) -> TensorBoard | None:
    logger = trainer.logger
    return logger if trainer.is_global_zero and isinstance(logger, TensorBoard) else None


def _classes(data: Any) -> Tensor:
    """The true class of each test image, counted from 0."""
    labels: Tensor = data.test_labels.cpu()
    return (labels > 0).long() if len(data.digits) == 2 else labels


def _mistakes(data: Any, probabilities: Tensor) -> Iterator[Any]:
    """Those among the first of the test images: the ones that this rank has seen."""
    from project.dashboard.figures import Mistake

    confidence, predicted = probabilities.max(1)
    true = _classes(data)[: len(predicted)]
    for n in (predicted != true).nonzero().flatten().tolist():
        names = data.digits[int(true[n])], data.digits[int(predicted[n])]
        yield Mistake(data.test_images[n].cpu(), *names, float(confidence[n]))


def write_hparams(logger: TensorBoard, settings: dict[str, Any], record: dict[str, Any]) -> None:
    """Puts the run into the HPARAMS table: its settings, and how it ended.

    TensorBoard takes the columns of the table from one of its runs, whichever, so that each names
    those of all. SummaryWriter.add_hparams would name its own, in a run of its own.
    """
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
    from torch.utils.tensorboard.summary import hparams

    writer = logger.experiment
    writer.add_scalar("model/parameters", record["parameters"], record["iterations"])
    columns = _columns()
    about = settings | {key: record[key] for key in ("config", "seed", "iterations", "backend")}
    values = {
        name: about[name] if kind == "DATA_TYPE_FLOAT64" else str(about[name])
        for name, kind in columns.items()
        if about.get(name) is not None
    }
    experiment = api_pb2.Experiment(
        hparam_infos=[
            api_pb2.HParamInfo(name=name, type=kind, differs=name in FIRST_COLUMNS)
            for name, kind in columns.items()
        ],
        metric_infos=[
            api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag))
            for tag in ("test/accuracy", "test/loss", "time/train_seconds", "model/parameters")
        ],
    )
    heading = Summary.Value(
        tag=metadata.EXPERIMENT_TAG,
        metadata=metadata.create_summary_metadata(
            plugin_data_pb2.HParamsPluginData(experiment=experiment)
        ),
        tensor=metadata.NULL_TENSOR,
    )
    _, start, end = hparams(values, {})  # type: ignore[no-untyped-call]
    for entry in (Summary(value=[heading]), start, end):
        writer.file_writer.add_summary(entry)


def _columns() -> dict[str, str]:
    """What a run of any experiment can be set to, and TensorBoard's word for its type."""
    numbers = {"config": False, "seed": True, "iterations": True, "batch_size": True}
    for model, _ in EXPERIMENTS.values():
        for name, parameter in inspect.signature(model, eval_str=True).parameters.items():
            kinds = set(get_args(parameter.annotation)) or {parameter.annotation}
            # A column that holds a word somewhere holds words everywhere, or cannot be sorted.
            numbers[name] = numbers.get(name, True) and kinds <= {int, float, NoneType}
    return {
        name: "DATA_TYPE_FLOAT64" if number else "DATA_TYPE_STRING"
        for name, number in numbers.items()
    }


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
