"""Trains LeNet-5 on the CPU without autograd: forward and backward pass in one compiled call.

Through torch, an iteration calls some thirty operators beside the fused blocks. For these, Python,
the dispatcher and autograd's graph take as long as the arithmetic of the dense layers.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from models import nets
from models.kernels import doors, trust
from models.kernels.conv_pool import dispatch
from models.kernels.lenet5.design import SIZE
from models.kernels.sizes import pooled_size
from models.kernels.update import Update
from models.layers import conv_pool
from models.layers.conv_pool import ConvPool, PartialConv
from models.layers.subsampling import Subsampling
from models.learners import eager, obstacles, proof
from models.learners.learner import Block, Learner, ObstacleError, Run

if TYPE_CHECKING:
    from models.classifier import Classifier
    from models.kernels.lenet5.cpu import LeNet5Gradient

LAYERS: dict[str, type[nn.Module]] = {
    "c1": ConvPool,
    "c3": ConvPool,
    "c5": nn.Linear,
    "f6": nn.Linear,
    "output": nn.Linear,
}
"""Layers of `nets.LeNet5` with parameters, in order."""

LAYERS_OF_1998: dict[str, type[nn.Module]] = {
    "c1": PartialConv,
    "s2": Subsampling,
    "c3": PartialConv,
    "s4": Subsampling,
    "c5": nn.Linear,
    "f6": nn.Linear,
}
"""Layers of `nets.LeNet1998` with parameters, in order."""

LAYERS_OF: dict[type[nn.Module], dict[str, type[nn.Module]]] = {
    nets.LeNet5: LAYERS,
    nets.LeNet1998: LAYERS_OF_1998,
}


def gradient_of(model: Any, **settings: Any) -> LeNet5Gradient:
    """The compiled loss and gradient of a model that is exactly `LeNet5` or `LeNet1998`.

    Args:
        model: the model to train, with its `design`.
        settings: further arguments of `models.kernels.lenet5.cpu.LeNet5Gradient`.
    """
    # Numba is loaded only where it runs.
    from models.kernels.conv_pool.cpu import Convolution
    from models.kernels.lenet5.cpu import LeNet5Gradient

    net = model.net
    first, second = (Convolution(*layer.arguments()) for layer in (net.c1, net.c3))
    return LeNet5Gradient(first, second, list(net.parameters()), model.design, **settings)


class Compiled(Learner):
    """Trains LeNet-5, or the network of 1998, by gradient descent, a block in one call.

    On several ranks each iteration is: the gradient, its sum over the ranks, and the step.
    """

    name = "compiled"
    devices = ("cpu",)

    def __init__(self, model: Classifier, run: Run) -> None:
        assert isinstance(run.optimizer, torch.optim.SGD)
        self._model = model
        self._optimizer = run.optimizer
        self._ranks = run.ranks
        self._all_reduce = run.all_reduce
        if run.all_reduce is not None:
            from models.learners.shared_sum import shared  # with Numba

            size = sum(part.numel() for part in model.net.parameters())
            self._all_reduce = shared(run.all_reduce, size, run.timeout)
        with _rehearsal(model, run):
            self._gradient().rehearse(is_joined=self._all_reduce is not None)
            if wrong := trust.find_obstacle(kernel_of(model), run.device, proving=True):
                raise ObstacleError(wrong)

    @classmethod
    def obstacle(cls, model: Classifier, run: Run) -> str | None:
        """Refuses what `CompiledGradient` does but plain DDP, and other inputs, targets, steps."""
        if run.all_reduce is not None:
            run = run._replace(strategy="")
        return (
            CompiledGradient.obstacle(model, run)
            or obstacles.own_part(model, ("inputs", "batch", "draw"))
            or obstacles.other_targets(model)
            or obstacles.another_descent(model, run, known=Update._fields)
        )

    def __call__(self, block: Block, rates: Tensor) -> Tensor:
        """See `Learner`."""
        from models.kernels.lenet5.cpu import MiniBatches

        shares = 1 / torch.from_numpy(block.totals)
        numbers = self._model.draw(block)
        batches = MiniBatches(block.images, block.labels, block.order, numbers)
        # Made anew for each block, since the parameters may have moved in memory.
        losses = self._gradient().descend(batches, block.sizes, shares, rates, self._all_reduce)
        return losses * self._ranks

    def _gradient(self) -> LeNet5Gradient:
        update, velocities = update_of(self._optimizer), None
        if update.momentum:
            parameters = self._optimizer.param_groups[0]["params"]
            velocities = [velocity_of(self._optimizer, weight) for weight in parameters]
        return gradient_of(
            self._model, distortion=self._model.distortion, update=update, velocities=velocities
        )


def kernel_of(model: Classifier) -> trust.Kernel:
    """The compiled code for this kind of model, with a comparison of one step."""
    net, c3 = type(model.net).__name__, len(model.net.get_parameter("c3.weight"))
    kind = f"{net}, {c3} connections{model.distortion.kind}"
    return trust.Kernel(f"compiled step ({kind})", lambda _: _errors(model), bound=2e-4)


def _errors(model: Any) -> trust.Errors:
    from models.kernels.lenet5.cpu import MiniBatches

    net = copy.deepcopy(model.net)
    parameters = list(net.parameters())
    before = proof.randomise(parameters)
    step = proof.random_step(model, 11)
    descent = gradient_of(
        SimpleNamespace(net=net, design=model.design),
        distortion=model.distortion,
        update=model.update,
        velocities=[torch.zeros_like(weight) for weight in before],
    )
    size, rate = np.array([11]), torch.tensor([proof.RATE])
    batches = MiniBatches(step.images, step.labels, torch.arange(11), step.numbers)
    loss = descent.descend(batches, size, torch.tensor([1 / 11]), rate)
    return proof.errors(model, model.update, step, loss[0], before, parameters)


def update_of(optimizer: torch.optim.SGD) -> Update:
    """The update that the optimizer's one group of parameters asks for."""
    (group,) = optimizer.param_groups
    return Update(*(group[name] for name in Update._fields))


def velocity_of(optimizer: torch.optim.SGD, parameter: Tensor) -> Tensor:
    """The optimizer's momentum buffer of a parameter, made if there is none, contiguous."""
    state = optimizer.state[parameter]
    velocity: Tensor | None = state.get("momentum_buffer")
    if velocity is None or not velocity.is_contiguous():
        zeros = torch.zeros_like(parameter, memory_format=torch.contiguous_format)
        velocity = state["momentum_buffer"] = zeros if velocity is None else zeros.copy_(velocity)
    return velocity


class CompiledGradient(Learner):
    """Differentiates LeNet-5, or that of 1998, on any inputs and targets; any optimizer steps."""

    name = "compiled-gradient"
    devices = ("cpu",)

    def __init__(self, model: Classifier, run: Run) -> None:
        eager.check(model)
        self._model = model
        self._is_scheduled = run.is_scheduled
        nothing = model.inputs(torch.empty(0, *model.pixels, dtype=torch.uint8))
        with _rehearsal(model, run):
            gradient_of(model)(nothing, torch.empty(0, dtype=torch.int64), 1)

    @classmethod
    def obstacle(cls, model: Classifier, run: Run) -> str | None:
        """Refuses another precision, hooks, and models that change network, loss or sizes."""
        if run.precision != "32-true":
            return f"the precision is {run.precision}"
        if onlooker := run.onlooker():
            return onlooker
        return (
            obstacles.own_part(model, ("forward", "losses"))
            or _another_net(model)
            or _other_sizes(model)
            or trust.find_obstacle(kernel_of(model), run.device, proving=False)
        )

    def __call__(self, block: Block, rates: Tensor) -> Tensor:
        """See `Learner`."""
        step = eager.unheard_step(self._model, gradient_of(self._model))
        return eager.take_steps(self._model, block, rates if self._is_scheduled else None, step)


@contextmanager
def _rehearsal(model: Classifier, run: Run) -> Iterator[None]:
    """Compiles what evaluations call too; the body compiles the gradient, called with no image."""
    with conv_pool.compiling():
        conv_pool.compile_ahead(model.net, run.device, gradient=False)
        yield
    model.zero_grad()


def _another_net(model: Any) -> str | None:
    return obstacles.another_net(model, model.kind, LAYERS_OF[model.kind])


def _other_sizes(model: Any) -> str | None:
    """Describes a backend, type or size that the compiled code does not support."""
    net, size = model.net, SIZE + 2 * model.design.margin
    for layer in (net.c1, net.c3):
        backend, weight = getattr(layer, "backend", "auto"), layer.weight
        asked = backend, weight.device, weight.dtype, layer.kernel_size, layer.padding
        if backend in ("composite", "reference"):
            return f"the backend is {backend}"
        if dispatch.choose(*asked) != "cpu":
            doubt = None if weight.device.type != "cpu" else dispatch.distrust(weight.device)
            return doubt or f"the convolutions are {weight.dtype}"
        size, _ = pooled_size(size, size, layer.padding)
    convolutions = [part for layer in (net.c1, net.c3) for part in (layer.weight, layer.bias)]
    features = len(net.c3.bias) * size**2
    try:
        doors.check_parameters([*net.parameters()], convolutions, features, model.design.codes)
    except (TypeError, ValueError) as error:
        return str(error)
    return None
