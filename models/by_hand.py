"""The gradients of LeNet-5 without autograd: the chain rule, written out.

Behind the fused blocks an iteration is some thirty small operators, for which autograd's graph and
its walk back take as long as the dense layers themselves. `cross_entropy` does what
`F.cross_entropy` and `backward` do, to the bit.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models import nets
from models.kernels.operator import fused_two_with_pullback


def applies(net: nn.Module) -> bool:
    """Whether `cross_entropy` can take autograd's place.

    The convolutions must run in the fused CPU version, and nobody may want autograd to do something
    else on the way: leave out a frozen parameter, or call a hook.
    """
    return (
        type(net) is nets.LeNet5
        and {layer.version(layer.weight) for layer in (net.c1, net.c3)} == {"cpu"}
        and all(p.requires_grad and not p._backward_hooks for p in net.parameters())
        and not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
        and not any(m._backward_hooks or m._backward_pre_hooks for m in net.modules())
    )


@torch.no_grad()
def cross_entropy(net: nets.LeNet5, x: Tensor, labels: Tensor, share: float) -> Tensor:
    """Sets every parameter's `grad` to that of share times the sum of the cross-entropies.

    Args:
        net: one that `applies`.
        x: (B, 1, 28, 28) float32.
        labels: (B,) int64.
        share: weight of each image; 1 / B gives the gradient of the mean.

    Returns:
        The cross-entropy of each image (B,).
    """
    c5, f6, output = net.c5, net.f6, net.output
    maps, pull_back = fused_two_with_pullback(x, net.c1.arguments(), net.c3.arguments())
    s4 = maps.flatten(1)  # (B, 400)
    y5 = torch.addmm(c5.bias, s4, c5.weight.t()).tanh_()  # (B, 120)
    y6 = torch.addmm(f6.bias, y5, f6.weight.t()).tanh_()  # (B, 84)
    logs = torch.addmm(output.bias, y6, output.weight.t()).log_softmax(1)  # (B, 10)
    right = labels.unsqueeze(1)
    losses = -logs.gather(1, right).squeeze(1)

    # The operators that autograd would call, so that the bits are the same.
    d = torch.zeros_like(logs).scatter_(1, right, -share)
    d = torch.ops.aten._log_softmax_backward_data(d, logs, 1, logs.dtype)
    d = torch.ops.aten.tanh_backward(_dense(output, d, y6), y6)
    d = torch.ops.aten.tanh_backward(_dense(f6, d, y5), y5)
    gradients = pull_back(_dense(c5, d, s4))
    trunk = (net.c1.weight, net.c1.bias, net.c3.weight, net.c3.bias)
    for parameter, gradient in zip(trunk, gradients, strict=True):
        parameter.grad = gradient
    return losses


def _dense(layer: nn.Linear, d: Tensor, x: Tensor) -> Tensor:
    """Sets the layer's gradients by d (B, out), that at its output; returns that at its input x."""
    layer.weight.grad, layer.bias.grad = d.t() @ x, d.sum(0)
    return d @ layer.weight
