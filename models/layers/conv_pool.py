"""A convolutional layer of LeNet-5, alone and together with the subsampling layer after it."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from models.kernels.conv_pool import composite, dispatch
from models.kernels.conv_pool.operator import fused_two
from models.kernels.notice import notice_if_slow
from models.kernels.table import ConnectionTable, connections
from models.layers.hooks import any_everywhere, has_hook


class PartialConv(nn.Module):
    """A convolution that has weights only for the connections of a table.

    With the table of LeCun et al. 1998 for C3 these are 60 * 25 weights, and 16 biases. With a full
    table it computes the same as `nn.Conv2d`.

    Args:
        in_channels: input maps.
        table: for each output map, the input maps it reads.
        kernel_size: height and width of a kernel.
        padding: zeros added on each side of the input.

    Raises:
        ValueError: the table names maps that do not exist, repeats one or leaves a row empty.
    """

    def __init__(
        self, in_channels: int, table: ConnectionTable, kernel_size: int = 5, padding: int = 0
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.kernel_size = kernel_size
        self.padding = padding
        self.connections: Tensor
        # Not persistent: the table is the architecture, not something learnt.
        self.register_buffer("connections", connections(table, in_channels), persistent=False)
        self.weight = nn.Parameter(torch.empty(len(self.connections), kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.empty(len(table)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws each output map as `nn.Conv2d` does, uniformly within +-1 / sqrt(fan-in)."""
        fan_in = self.fan_in().to(self.weight.dtype)
        self.draw(1 / fan_in.sqrt())

    def fan_in(self) -> Tensor:
        """The number of inputs of a pixel of each output map, (M,) int64."""
        output = self.connections[:, 0]
        return self.kernel_size**2 * torch.bincount(output, minlength=len(self.bias))

    def draw(self, bound: Tensor) -> None:
        """Draws weights and biases of each output map uniformly between -bound and bound (M,)."""
        with torch.no_grad():
            self.weight.uniform_(-1, 1).mul_(bound[self.connections[:, 0], None, None])
            self.bias.uniform_(-1, 1).mul_(bound)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, len(table), H', W')."""
        return composite.partial_conv2d(x, *self.arguments())

    def arguments(self) -> tuple[Tensor, Tensor, Tensor, int]:
        """The arguments of the operators after x."""
        return self.weight, self.bias, self.connections, self.padding

    def extra_repr(self) -> str:
        """Shown by print(model)."""
        return (
            f"{self.in_channels} -> {len(self.bias)}, {len(self.weight)} connections, "
            f"kernel {self.kernel_size}x{self.kernel_size}, padding {self.padding}"
        )


class ConvPool(PartialConv):
    """Partial convolution, tanh, 2x2 average pool, tanh, in one operator where that is faster.

    Args:
        in_channels: input maps.
        table: for each output map, the input maps it reads.
        kernel_size: height and width of a kernel.
        padding: zeros added on each side of the input.
        backend: the version that runs: auto, cpu, cuda, composite or reference.

    Raises:
        ValueError: as `PartialConv`, or for a backend that cannot run here.
    """

    def __init__(
        self,
        in_channels: int,
        table: ConnectionTable,
        kernel_size: int = 5,
        padding: int = 0,
        backend: str = "auto",
    ) -> None:
        super().__init__(in_channels, table, kernel_size, padding)
        self.backend = dispatch.check(backend)

    def version(self, x: Tensor) -> str:
        """The version that runs for this input."""
        return dispatch.choose(self.backend, x.device, x.dtype, self.kernel_size, self.padding)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, len(table), H' // 2, W' // 2); lanes likewise."""
        function = dispatch.CONV_POOL[self.version(x)]
        self.check(x.shape[1])
        return function(x, *self.arguments())

    def check(self, maps: int) -> None:
        """Refuses another number of input maps: the fused versions would read out of bounds."""
        if maps != self.in_channels:
            raise ValueError(f"expected {self.in_channels} input maps, got {maps}")

    def extra_repr(self) -> str:
        """Shown by print(model)."""
        return f"{super().extra_repr()}, {self.backend}"


def conv_pool_twice(x: Tensor, first: ConvPool, second: ConvPool) -> Tensor:
    """Computes second(first(x)) for x (B, C, H, W), in one operator where that is faster."""
    is_heard = any(_is_heard(layer) for layer in (first, second))
    if is_heard or {first.version(x), second.version(x)} != {"cpu"}:
        maps: Tensor = second(first(x))
        return maps
    first.check(x.shape[1])
    second.check(len(first.bias))
    return fused_two(x, first.arguments(), second.arguments())


def _is_heard(layer: ConvPool) -> bool:
    """Whether calling the layer does more than `ConvPool.forward`: a hook, or an override."""
    return (
        has_hook(layer)
        or "forward" in layer.__dict__
        or type(layer) is not ConvPool
        or any_everywhere()
    )


def first(net: nn.Module) -> ConvPool | None:
    """The first fused layer of a network, if it has one."""
    return next((layer for layer in net.modules() if isinstance(layer, ConvPool)), None)


def compile_ahead(net: nn.Module, device: torch.device, *, gradient: bool) -> None:
    """Compiles the kernels of a network for a device, or loads them, before anything is timed.

    Args:
        net: any network; without a fused layer there is nothing to compile.
        device: the device that it will run on.
        gradient: whether to compile the backward pass too.
    """
    layer = first(net)
    if layer is None:
        return
    version = dispatch.choose(layer.backend, device, layer.weight.dtype)
    if version in ("cpu", "cuda"):
        dispatch.compile_ahead(device, gradient=gradient)


def compiling() -> AbstractContextManager[None]:
    """A context that prints a notice if the compilation inside it takes long."""
    return notice_if_slow("Compiling the network, once on this machine (about 15 s) ...")
