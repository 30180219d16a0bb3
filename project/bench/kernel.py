"""How fast is the fused block, compared with its reference, a dense one and torch.compile?"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from models.kernels.conv_pool import composite, reference
from models.kernels.conv_pool.operator import fused
from models.kernels.lanes import to_lanes
from models.kernels.table import C3_TABLE, ConnectionTable, connections, full_table
from project.bench.measure import Timing, devices, has_compiler, interleaved, peak_flops


class Layer(NamedTuple):
    """A convolutional layer with the pooling after it."""

    in_channels: int
    table: ConnectionTable
    size: int
    padding: int


LAYERS = {
    "C3 original": Layer(6, C3_TABLE, 14, 0),
    "C3 modern": Layer(6, full_table(6, 16), 14, 0),
    "C1": Layer(1, full_table(1, 6), 28, 2),
}
BATCHES = (1, 100, 1000)


def measure(
    layer_name: str, batch: int, repeats: int, peak: float, device: torch.device
) -> list[dict[str, Any]]:
    """Times every version of one layer at one batch size; returns a row for each.

    The roofline share counts the operations of the table's connections only, forward, over `peak`.
    """
    layer = LAYERS[layer_name]
    forward, both = versions(layer, batch, device)
    forward_times, both_times = interleaved(forward, repeats), interleaved(both, repeats)
    pairs = sum(len(row) for row in layer.table)
    pixels = (layer.size + 2 * layer.padding - 4) ** 2
    flops = 2 * 25 * batch * pairs * pixels
    return [
        {
            "layer": layer_name,
            "batch": batch,
            "device": str(device),
            "version": name,
            "forward": forward_times[name].seconds,
            "forward + backward": both_times[name].seconds,
            "ratio": both_times["reference"].median / both_times[name].median,
            "roofline": flops / forward_times[name].median / peak,
        }
        for name in forward
    ]


def versions(
    layer: Layer, batch: int, device: torch.device
) -> tuple[dict[str, Callable[[], Any]], dict[str, Callable[[], Any]]]:
    """Returns forward alone, and forward and backward, of every version by name."""
    torch.manual_seed(0)
    pairs = connections(layer.table, layer.in_channels).to(device)
    x = torch.randn(batch, layer.in_channels, layer.size, layer.size, device=device)
    weight = torch.randn(len(pairs), 5, 5, device=device) / 10
    bias = torch.zeros(len(layer.table), device=device)
    dense = torch.randn(len(bias), layer.in_channels, 5, 5, device=device) / 10
    compiled = torch.compile(composite.conv_pool)
    own = to_lanes(x) if device.type == "cpu" else x
    first = layer.in_channels == 1  # C1 needs no gradient of the images

    def dense_block(x: Tensor, weight: Tensor) -> Tensor:
        return F.avg_pool2d(F.conv2d(x, weight, bias, padding=layer.padding).tanh(), 2).tanh()

    functions: dict[str, tuple[Callable[..., Tensor], Tensor, Tensor]] = {
        "reference": (
            lambda x, w: reference.conv_pool(x, w, bias, pairs, layer.padding),
            x,
            weight,
        ),
        "composite": (
            lambda x, w: composite.conv_pool(x, w, bias, pairs, layer.padding),
            x,
            weight,
        ),
        "torch.compile": (lambda x, w: compiled(x, w, bias, pairs, layer.padding), x, weight),
        "dense eager": (dense_block, x, dense),
        f"fused ({device.type})": (
            lambda x, w: fused(x, w, bias, pairs, layer.padding),
            own,
            weight,
        ),
    }
    if device.type == "cpu" and not has_compiler():
        del functions["torch.compile"]
    forward = {name: _forward(*parts) for name, parts in functions.items()}
    both = {name: _both(*parts, want_input=not first) for name, parts in functions.items()}
    return forward, both


def _forward(function: Callable[..., Tensor], x: Tensor, w: Tensor) -> Callable[[], Any]:
    def run() -> None:
        with torch.no_grad():
            function(x, w)

    return run


def _both(
    function: Callable[..., Tensor], x: Tensor, w: Tensor, *, want_input: bool
) -> Callable[[], Any]:
    inputs = [w.clone().requires_grad_()]
    if want_input:
        inputs.append(x.clone().requires_grad_())
    image = inputs[1] if want_input else x
    with torch.no_grad():
        grad = torch.randn_like(function(x, w))

    def run() -> None:
        torch.autograd.grad(function(image, inputs[0]), inputs, grad)

    return run


def run(
    batches: Sequence[int], repeats: int, progress: Callable[[str], Any]
) -> list[dict[str, Any]]:
    """Times all layers at all batch sizes on all devices; `progress` gets the name of each."""
    rows = []
    for device in devices():
        peak = peak_flops(device)
        for layer_name, batch in itertools.product(LAYERS, batches):
            progress(f"{layer_name}, batch {batch} on {device}")
            rows += measure(layer_name, batch, repeats, peak, device)
    return rows


def lines(rows: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Returns the lines of the table, from the rows of `run`."""
    return [
        (
            row["layer"],
            str(row["batch"]),
            row["device"],
            row["version"],
            str(Timing(row["forward"])),
            str(Timing(row["forward + backward"])),
            f"{row['ratio']:.1f} x",
            f"{row['roofline']:.0%}",
        )
        for row in rows
    ]
