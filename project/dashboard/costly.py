"""What --figures full adds: histograms, the graph, the projector, precision over recall."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch import Tensor

from models import nets

EMBEDDED = 1000  # digits in the projector


def write(writer: Any, module: Any, data: Any, probabilities: Tensor, step: int) -> None:
    """Adds what takes time or space, at the end of a run."""
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
        warnings.simplefilter("ignore")  # from torch, about its own tracer and shapes as numbers
        writer.add_graph(net, inputs[:1])
    if len(data.digits) == 2:
        true = true_classes(data)[: len(probabilities)]
        writer.add_pr_curve("test/precision_recall", true, probabilities[:, 1], step)


def true_classes(data: Any) -> Tensor:
    """Returns the true class of each test image, from 0."""
    labels: Tensor = data.test_labels.cpu()
    return (labels > 0).long() if len(data.digits) == 2 else labels
