"""LeNet-5 on the ten digits."""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar, Literal, TypeVar

import torch.nn.functional as F
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor

from models import nets, schedules
from models.classifier import Classifier
from models.kernels.conv_pool.dispatch import Backend
from models.kernels.distortion import Distortion
from models.kernels.lenet5.design import LENET5, Design
from models.kernels.update import Update
from models.layers import conv_pool
from models.learners import Learner
from models.learners.compiled import Compiled, CompiledGradient
from models.learners.fused import Fused
from models.learners.recorded import Recorded
from models.schedules import Schedule
from models.teachers import Teachers, TeachersError

Scalars = TypeVar("Scalars", float, Tensor)

MEAN, DEVIATION = 0.1307, 0.3081
"""Mean and standard deviation of MNIST's training pixels in [0, 1]."""

SCHEDULES: dict[str, Schedule] = {
    "constant": schedules.constant,
    "cosine": schedules.cosine,
    "one-cycle": schedules.one_cycle,
}


class LeNet5(Classifier):
    """LeNet-5 with cross-entropy and gradient descent; the defaults are the document's training.

    Args:
        c3: Connections of C3: Table I of LeCun et al. 1998 (original), or all of them (modern).
        lr: Highest learning rate.
        momentum: Momentum of SGD.
        nesterov: Use Nesterov momentum.
        weight_decay: Weight decay (L2), as in torch.optim.SGD.
        schedule: Learning rate: constant; linear rise over one epoch, then cosine decay to 0 at
            the end (cosine); or linear rise over two fifths of the training, then linear decay
            to 0 (one-cycle).
        rotation: Distortion of training images: largest rotation in degrees, either way.
        scale: Distortion: factors of height and of width, from 1 - scale to 1 + scale.
        shear: Distortion: largest shear, in columns per row.
        shift: Distortion: largest shift in pixels, across and down.
        elastic: Distortion: elastic shift in pixels, root mean square.
        standardize: Scale pixels to mean 0 and variance 1 over the training images, not 0 to 1.
        teachers: Checkpoints of trained LeNet-5s, or folders of their runs, as "runs/teacher-*";
            their mean predictions for the distorted images are the targets, not the labels.
        backend: Version of the convolutional layers; auto takes the fastest that can run.
        classes: Number of classes; for other data than MNIST it is read from the data's files.
    """

    kind = nets.LeNet5
    learners: ClassVar[tuple[type[Learner], ...]] = (Compiled, CompiledGradient, Fused, Recorded)

    def __init__(
        self,
        c3: nets.C3 = "original",
        lr: float = 0.1,
        momentum: float = 0,
        nesterov: bool = False,
        weight_decay: float = 0,
        schedule: Literal["constant", "cosine", "one-cycle"] = "constant",
        rotation: float = 0,
        scale: float = 0,
        shear: float = 0,
        shift: float = 0,
        elastic: float = 0,
        standardize: bool = False,
        teachers: str = "",
        backend: Backend = "auto",
        classes: int = 10,
    ) -> None:
        if classes < 2:
            raise ValueError(f"classes must be 2 or more, got {classes}")
        super().__init__(
            nets.LeNet5(c3, backend, classes),
            classes=classes,
            lr=lr,
            update=Update(momentum, nesterov, weight_decay),
            schedule=SCHEDULES[schedule],
            distortion=Distortion(rotation, scale, shear, shift, elastic),
        )
        self.net: nets.LeNet5
        self.standardize = standardize
        self.teachers = teachers
        self.save_hyperparameters()

    @property
    def design(self) -> Design:
        """The constants of this network for the compiled learner."""
        return LENET5._replace(paper=self._scaled(0.0), ink=self._scaled(1.0))

    @property
    def backend(self) -> str:
        """The version of the convolutional layers that runs, as recorded with the results."""
        layer = conv_pool.first(self.net)
        if layer is None:
            return "composite"
        version = layer.version(layer.weight)
        return "composite" if self._is_mixed() and version != "reference" else version

    def setup(self, stage: str) -> None:
        """Reads the teachers of a training, or compiles the forward pass of an evaluation."""
        if stage == "fit" and self.teachers:
            # Before the run writes anything, since it may fail.
            _ = self._teachers
        if stage != "fit" and not self._is_mixed():
            # Lightning has not moved the model to its device yet.
            device = self.trainer.strategy.root_device
            with conv_pool.compiling():
                conv_pool.compile_ahead(self.net, device, gradient=False)

    def _is_mixed(self) -> bool:
        return self._trainer is not None and "mixed" in str(self.trainer.precision)

    def inputs(self, images: Tensor) -> Tensor:
        """Pixels (B, 28, 28) -> (B, 1, 28, 28) in [0, 1], or standardized."""
        return self._scaled(images.unsqueeze(1).to(self.dtype) / 255)

    def _scaled(self, pixels: Scalars) -> Scalars:
        return (pixels - MEAN) / DEVIATION if self.standardize else pixels

    @cached_property
    def _teachers(self) -> Teachers:
        same = {name: self.hparams[name] for name in ("standardize", "classes")}
        try:
            return Teachers(self.teachers, same)
        except TeachersError as error:
            raise MisconfigurationException(f"{error}.") from error

    def targets(self, x: Tensor, labels: Tensor) -> Tensor:
        """The teachers' mean probabilities (B, classes) for inputs x; without any, the labels."""
        return self._teachers(x) if self.teachers else labels

    def losses(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of logits (B, classes), with labels or probabilities -> (B,)."""
        return F.cross_entropy(outputs, labels, reduction="none")

    def predicted_and_true(self, outputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Predicts the class of the largest logit; the true class is the label."""
        return outputs.argmax(1), labels

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Softmax of logits (B, classes)."""
        return outputs.softmax(1)
