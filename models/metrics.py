"""The metrics of validation and test."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

STAGES = ("val", "test")


def of_stages(classes: int) -> nn.ModuleDict:
    """A metric collection for each stage: "accuracy", "confusion" and "loss"."""
    metrics = MetricCollection(
        {
            "accuracy": MulticlassAccuracy(classes, average="micro"),
            "confusion": MulticlassConfusionMatrix(classes),
            "loss": MeanMetric(),
        },
        compute_groups=False,  # each is updated with arguments of its own
    )
    return nn.ModuleDict({stage: metrics.clone() for stage in STAGES})


def keep_to_this_rank(metrics: nn.ModuleDict) -> None:
    """Makes each rank compute its own values; by default metrics are reduced over all ranks."""
    for module in metrics.modules():
        if isinstance(module, Metric):
            module.distributed_available_fn = lambda: False


def scalars(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Accuracy, loss and the counts behind them, from the computed values of a collection."""
    confusion = values["confusion"]
    return {
        "accuracy": values["accuracy"],
        "loss": values["loss"],
        "correct": confusion.trace().float(),
        "total": confusion.sum().float(),
        "predicted_classes": (confusion.sum(0) > 0).sum().float(),
    }
