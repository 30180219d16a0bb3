"""The recorded learner with Triton kernels for the whole of LeNet-5, in place of autograd.

An iteration is then ten launches, where autograd makes dozens, and each launch has a fixed cost.
"""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

from models.kernels import doors, trust
from models.kernels.conv_pool import dispatch
from models.kernels.lenet5.design import check_widths
from models.learners import obstacles, recorded
from models.learners.iteration import Iteration, Memory
from models.learners.learner import ObstacleError, Run
from models.learners.recorded import Recorded

if TYPE_CHECKING:
    from models.classifier import Classifier

CLASSES = 128
"""The largest number of classes that one program has room for."""


class FusedIteration(Iteration):
    """The same as `Iteration`, for a model that is exactly `LeNet5`.

    Under autocast the factors of the dense layers' products are rounded to bfloat16; all else is
    computed in float32, since lower precision would not save a cast.
    """

    def __init__(self, *args: Any) -> None:
        from models.kernels.lenet5 import cuda_update

        super().__init__(*args)
        self._tiles = cuda_update.tiles(self.parameters, self.velocities)

    def differentiate(self) -> None:
        """Writes the loss and the gradients."""
        from models.kernels.lenet5 import cuda  # with Triton

        model: Any = self._model
        cuda.differentiate(
            self.memory,
            (model.net.c1.arguments(), model.net.c3.arguments()),
            [parameter.detach() for parameter in self.parameters],
            self._gradients,
            model.design,
            model.distortion,
            is_rounded=torch.is_autocast_enabled(self.memory.k.device.type),
        )

    def take_step(self) -> None:
        """Takes the step, and advances the counter."""
        from models.kernels.lenet5 import cuda_update

        memory = self.memory
        cuda_update.take_step(self._tiles, self._row, memory.rates, memory.k, self.update)
        memory.k.add_(1)


class Fused(Recorded):
    """Trains LeNet-5 on GPUs, in float32 or under bfloat16 autocast.

    Raises:
        ObstacleError: as `Recorded`, or the kernels give wrong numbers.
    """

    name = "recorded-kernels"
    iteration = FusedIteration

    def __init__(self, model: Classifier, run: Run) -> None:
        if wrong := trust.find_obstacle(kernel_of(model), run.device, proving=True):
            raise ObstacleError(wrong)
        super().__init__(model, run)

    @classmethod
    def obstacle(cls, model: Classifier, run: Run) -> str | None:
        """Refuses what `Recorded` does, teachers, and sizes that the kernels do not support."""
        return (
            super().obstacle(model, run)
            or obstacles.other_targets(model)
            or _other_sizes(model, run.device)
            or trust.find_obstacle(kernel_of(model), run.device, proving=False)
        )


def _other_sizes(model: Any, device: torch.device) -> str | None:
    """Describes a backend, type or size that the kernels do not support."""
    net = model.net
    for layer in (net.c1, net.c3):
        if layer.backend in ("composite", "reference"):
            return f"the backend is {layer.backend}"
        asked = layer.backend, device, layer.weight.dtype, layer.kernel_size, layer.padding
        if dispatch.choose(*asked) != "cuda":
            return dispatch.distrust(device) or f"the convolutions are {layer.weight.dtype}"
    if len(model.labels) > CLASSES:
        return f"there are more than {CLASSES} classes"
    convolutions = [part for layer in (net.c1, net.c3) for part in (layer.weight, layer.bias)]
    try:
        doors.check_parameters([*net.parameters()], convolutions, net.c5.in_features)
        check_widths([*net.parameters()])
    except (TypeError, ValueError) as error:
        return str(error)
    if not all(parameter.is_contiguous() for parameter in net.parameters()):
        return "a parameter is not contiguous"
    return None


def kernel_of(model: Classifier) -> trust.Kernel:
    """The kernels for this kind of model, with a comparison of one step."""
    connections = len(model.net.get_parameter("c3.weight"))
    kind = f"{connections} connections{model.distortion.kind}"
    name = f"LeNet-5's own kernels ({kind})"
    return trust.Kernel(name, lambda device: _errors(model, device), bound=2e-4)


def _errors(model: Any, device: torch.device) -> trust.Errors:
    stand_in: Any = SimpleNamespace(
        net=copy.deepcopy(model.net).to(device),
        pixels=model.pixels,
        design=model.design,
        distortion=model.distortion,
    )
    # 37 images fill neither whole programs nor a whole step of their sums.
    memory = Memory(stand_in, device, 37, 1)
    optimizer = torch.optim.SGD(stand_in.net.parameters(), **model.update._asdict())
    iteration = FusedIteration(stand_in, memory, optimizer, None)
    return recorded.errors(model, iteration, iteration)
