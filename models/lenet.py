"""LeNet-5 on the ten digits."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from models import nets
from models.classifier import Classifier
from models.kernels.dispatch import Backend
from models.layers import conv_pool
from models.learners import Learner
from models.learners.compiled import Compiled, CompiledGradient
from models.learners.recorded import Recorded


class LeNet5(Classifier):
    """LeNet-5 for images in [0, 1], cross-entropy, gradient descent.

    Args:
        c3: Connections of C3: by Table I of LeCun et al. 1998 (original), or all of them (modern).
        lr: Learning rate.
        backend: Version of the convolutional layers; auto takes the fastest that can run.
    """

    learners: ClassVar[tuple[type[Learner], ...]] = (Compiled, CompiledGradient, Recorded)

    def __init__(
        self, c3: nets.C3 = "original", lr: float = 0.1, backend: Backend = "auto"
    ) -> None:
        net = nets.LeNet5(c3, backend)
        super().__init__(net, classes=10, lr=lr)
        self.net: nets.LeNet5
        self.save_hyperparameters()

    @property
    def backend(self) -> str:
        """The version that runs, for the record."""
        layer = conv_pool.first(self.net)
        if layer is None:
            return "composite"
        version = layer.version(layer.weight)
        return "composite" if self._is_mixed() and version != "reference" else version

    def setup(self, stage: str) -> None:
        """Compiles what an evaluation calls, so that it counts as set-up."""
        if stage != "fit" and not self._is_mixed():
            # Where the model will be: Lightning has not moved it yet.
            device = self.trainer.strategy.root_device
            with conv_pool.compiling():
                conv_pool.warm_up(self.net, device, gradient=False)

    def _is_mixed(self) -> bool:
        return self._trainer is not None and "mixed" in str(self.trainer.precision)

    def inputs(self, images: Tensor) -> Tensor:
        """Pixels (B, 28, 28) uint8 -> (B, 1, 28, 28) in [0, 1]."""
        return images.unsqueeze(1).to(self.dtype) / 255

    def losses(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of logits (B, 10) -> (B,)."""
        return F.cross_entropy(outputs, labels, reduction="none")

    def classes(self, outputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The largest logit, and the label itself."""
        return outputs.argmax(1), labels

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Softmax of logits (B, 10)."""
        return outputs.softmax(1)
