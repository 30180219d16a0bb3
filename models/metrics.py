"""The metrics of validation and test."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric, MetricCollection
from torchmetrics.classification import MulticlassConfusionMatrix

STAGES = ("val", "test")


class Confusion(MulticlassConfusionMatrix):
    """Counts without a look at what is counted, for which a GPU would be waited for.

    `torch.bincount`, by which torchmetrics counts, asks for the largest value.
    """

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Counts predicted and true classes, both (B,) int64 from 0 to below the number of them."""
        # With both indices, so that a class that does not exist is refused, not counted elsewhere.
        self.confmat.index_put_((target, preds), torch.ones_like(target), accumulate=True)


def of_stages(classes: int) -> nn.ModuleDict:
    """A metric collection for each stage: "confusion" and "loss"."""
    metrics = MetricCollection(
        {
            "confusion": Confusion(classes, validate_args=False),
            # A NaN is not looked for, which a GPU would be waited for, and stays in the mean.
            "loss": MeanMetric(nan_strategy="disable"),
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
    correct, total = confusion.trace().float(), confusion.sum().float()
    return {
        "accuracy": correct / total,
        "loss": values["loss"],
        "correct": correct,
        "total": total,
        "predicted_classes": (confusion.sum(0) > 0).sum().float(),
    }
