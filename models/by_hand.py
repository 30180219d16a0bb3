"""The gradient of LeNet-5 without autograd: the whole net, there and back, in one compiled call.

An iteration through torch is some thirty operators behind the fused blocks. Python, the dispatcher
and autograd's graph take as long for them as the arithmetic of the dense layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from models import nets
from models.kernels.doors import PARAMETERS
from models.kernels.sizes import TILE
from models.layers.conv_pool import ConvPool


def applies(net: nn.Module) -> bool:
    """Whether `Gradient` can take the place of autograd: in the fused CPU version, unobserved."""
    return (
        is_unobserved(net)
        and _is_lenet5(net)
        and {layer.version(layer.weight) for layer in (net.c1, net.c3)} == {"cpu"}
        and all(parameter.is_contiguous() for parameter in net.parameters())
    )


def _is_lenet5(net: nets.LeNet5) -> bool:
    """Whether its layers and parameters still are those that `Gradient` computes with."""
    return (
        [name for name, _ in net.named_parameters()] == [*PARAMETERS]
        and all(type(layer) is ConvPool for layer in (net.c1, net.c3))
        and all(
            type(layer) is nn.Linear and min(layer.weight.shape) >= TILE
            for layer in (net.c5, net.f6, net.output)
        )
    )


def is_unobserved(net: nn.Module) -> TypeGuard[nets.LeNet5]:
    """Whether nobody wants autograd to do more: leave out a frozen parameter, or call a hook."""
    return (
        type(net) is nets.LeNet5
        and all(p.requires_grad and not p._backward_hooks for p in net.parameters())
        and not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
        and not any(m._backward_hooks or m._backward_pre_hooks for m in net.modules())
    )


def hand_over(gradients: Sequence[Tensor], parameters: Sequence[Tensor]) -> None:
    """Makes the gradients the `grad` of the parameters."""
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient


class Gradient:
    """What `F.cross_entropy` and `backward` do, for a net that `applies`.

    Every parameter's `grad` becomes that of the last iteration, the same tensor every time.
    """

    def __init__(self, net: nets.LeNet5) -> None:
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

    def descend(self, *block: Any) -> Tensor:
        """As `models.kernels.cpu.LeNet5Gradient.descend`; returns the losses (K,)."""
        losses: Tensor = self._compute.descend(*block)
        hand_over(self._gradients, self._parameters)
        return losses
