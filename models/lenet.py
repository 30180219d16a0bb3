"""LeNet-5 on the ten digits."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from models import by_hand, nets
from models.classifier import Classifier, Differentiator
from models.kernels import dispatch
from models.kernels.dispatch import Backend


class LeNet5(Classifier):
    """LeNet-5 for images in [0, 1], cross-entropy, gradient descent.

    Args:
        c3: Connections of C3: by Table I of LeCun et al. 1998 (original), or all of them (modern).
        lr: Learning rate.
        backend: Version of the convolutional layers; auto takes the fastest that can run.
    """

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
        return self._version_on(self.net.c3.weight.device)

    def _version_on(self, device: torch.device) -> str:
        backend: str = self.hparams["backend"]
        if self._trainer is not None and "mixed" in str(self.trainer.precision):
            return "reference" if backend == "reference" else "composite"
        return dispatch.choose(backend, device, self.net.c3.weight.dtype)

    def setup(self, stage: str) -> None:
        """Compiles what is compiled, so that it counts as set-up."""
        # Where the model will be: Lightning has not moved it yet.
        device = self.trainer.strategy.root_device
        if self._version_on(device) in ("cpu", "cuda"):
            dispatch.warm_up(device)

    def differentiator(self, *, watched: bool) -> Differentiator:
        """Without autograd, where that can do without."""
        is_plain = type(self).losses is LeNet5.losses and not watched
        if is_plain and by_hand.applies(self.net):
            return partial(by_hand.cross_entropy, self.net)
        return super().differentiator(watched=watched)

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
