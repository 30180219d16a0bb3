"""Learning on the CPU without autograd: all of LeNet-5, there and back, in one compiled call.

An iteration through torch is some thirty operators behind the fused blocks. Python, the dispatcher
and autograd's graph take as long for them as the arithmetic of the dense layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from models import nets
from models.kernels import dispatch, doors
from models.kernels.sizes import pooled_size
from models.layers import conv_pool
from models.layers.conv_pool import ConvPool
from models.learners import door, eager
from models.learners.learner import Block, Counts, Learner, Run

if TYPE_CHECKING:
    from models.classifier import Classifier

LAYERS: dict[str, type[nn.Module]] = {
    "c1": ConvPool,
    "c3": ConvPool,
    "c5": nn.Linear,
    "f6": nn.Linear,
    "output": nn.Linear,
}
"""Of `nets.LeNet5`, in order."""


class Gradient:
    """What `F.cross_entropy` and `backward` do, for a net that is exactly `nets.LeNet5`.

    Every parameter's `grad` becomes that of the last iteration, the same tensor every time.
    """

    def __init__(self, net: Any) -> None:
        from models.kernels import cpu  # Numba is loaded only where it runs

        self._parameters = list(net.parameters())
        self._gradients = [torch.empty_like(parameter) for parameter in self._parameters]
        first, second = (cpu.Block(*layer.arguments()) for layer in (net.c1, net.c3))
        self._compute = cpu.LeNet5Gradient(first, second, self._parameters, self._gradients)

    def __call__(self, x: Tensor, labels: Tensor, share: float) -> Tensor:
        """As `models.kernels.cpu.LeNet5Gradient`; returns the cross-entropies (B,)."""
        losses: Tensor = self._compute(x, labels, share)
        hand_over(self._gradients, self._parameters)
        return losses

    def descend(
        self,
        images: Tensor,
        labels: Tensor,
        order: Tensor,
        sizes: Counts,
        shares: Tensor,
        rates: Tensor,
    ) -> Tensor:
        """As `models.kernels.cpu.LeNet5Gradient.descend`; returns the losses (K,)."""
        losses: Tensor = self._compute.descend(images, labels, order, sizes, shares, rates)
        hand_over(self._gradients, self._parameters)
        return losses


class Compiled(Learner):
    """LeNet-5 on pixels / 255 with cross-entropy and plain descent: a block is one call."""

    name = "compiled"
    devices = ("cpu",)

    def __init__(self, model: Classifier, run: Run) -> None:
        self._net: Any = model.net
        none = torch.empty(0, dtype=torch.int64)
        images = torch.empty(0, 28, 28, dtype=torch.uint8)
        with _rehearsal(model, run):
            Gradient(self._net).descend(images, none, none, none.numpy(), none, none)

    @classmethod
    def obstacle(cls, model: Classifier, run: Run) -> str | None:
        """What is one for `CompiledGradient`, other inputs, or more than plain descent."""
        return (
            CompiledGradient.obstacle(model, run)
            or door.own_part(model, ("inputs", "batch"))
            or door.another_descent(model, run)
        )

    def __call__(self, block: Block, rates: Tensor) -> Tensor:
        """As `Learner`."""
        shares = 1 / torch.from_numpy(block.totals)
        # Anew for each block, since somebody may have given the parameters other memory.
        gradient = Gradient(self._net)
        return gradient.descend(block.images, block.labels, block.order, block.sizes, shares, rates)


class CompiledGradient(Learner):
    """LeNet-5 with cross-entropy, on any inputs; the step is the optimizer's, whichever it is."""

    name = "compiled-gradient"
    devices = ("cpu",)

    def __init__(self, model: Classifier, run: Run) -> None:
        eager.check(model)
        self._model = model
        self._net: Any = model.net
        self._is_scheduled = run.is_scheduled
        none = torch.empty(0, dtype=torch.int64)
        with _rehearsal(model, run):
            Gradient(self._net)(torch.empty(0, 1, 28, 28), none, 1)

    @classmethod
    def obstacle(cls, model: Classifier, run: Run) -> str | None:
        """Another precision, listeners, or more than the class computes behind the inputs."""
        if run.precision != "32-true":
            return f"the precision is {run.precision}"
        if run.listeners:
            return run.listeners[0]
        return (
            door.own_part(model, ("forward", "losses"))
            or door.another_net(model, nets.LeNet5, LAYERS)
            or _other_sizes(model.net)
        )

    def __call__(self, block: Block, rates: Tensor) -> Tensor:
        """As `Learner`."""
        step = eager.unheard_step(self._model, Gradient(self._net))
        return eager.take_steps(self._model, block, rates if self._is_scheduled else None, step)


def hand_over(gradients: Sequence[Tensor], parameters: Sequence[Tensor]) -> None:
    """Makes the gradients the `grad` of the parameters."""
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient


@contextmanager
def _rehearsal(model: Classifier, run: Run) -> Iterator[None]:
    """Compiles what evaluations call too; what is inside calls the gradient without an image."""
    with conv_pool.compiling():
        conv_pool.warm_up(model.net, run.device, gradient=False)
        yield
    model.zero_grad()


def _other_sizes(net: Any) -> str | None:
    """Says what the compiled code cannot compute with."""
    for layer in (net.c1, net.c3):
        if layer.backend in ("composite", "reference"):
            return f"the backend is {layer.backend}"
        if layer.version(layer.weight) != "cpu":
            missing = "numba" in dispatch.MISSING
            return (
                "numba is not installed"
                if missing
                else f"the convolutions are {layer.weight.dtype}"
            )
    size = 28
    for layer in (net.c1, net.c3):
        size, _ = pooled_size(size, size, layer.padding)
    parameters = list(net.parameters())
    try:
        doors.check_parameters(parameters, parameters[:4], len(net.c3.bias) * size**2)
    except (TypeError, ValueError) as error:
        return str(error)
    return None
