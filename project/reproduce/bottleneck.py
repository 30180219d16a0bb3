"""Problem 3: what 1x1 convolutions are good for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from data import source
from project.reproduce import drawing, filters
from project.reproduce.record import Figure, Outcome, Row, Task, Verdict
from project.reproduce.theory import multiplications

SIDE = 28
INPUTS, BETWEEN, OUTPUTS = 192, 16, 32
DIRECT = 120_422_400
BOTTLENECK = 12_443_648


def run(task: Task) -> Outcome:
    """Counts multiplications twice, by hand and by torch, and turns colours into grey."""
    direct = [nn.Conv2d(INPUTS, OUTPUTS, 5, padding=2)]
    bottleneck = [nn.Conv2d(INPUTS, BETWEEN, 1), nn.Conv2d(BETWEEN, OUTPUTS, 5, padding=2)]
    ours = [multiplications(chain, SIDE, SIDE) for chain in (direct, bottleneck)]
    by_torch = [_by_torch(chain) for chain in (direct, bottleneck)]
    totals_hold = [sum(counts) for counts in ours] == by_torch == [DIRECT, BOTTLENECK]
    luma_error, figure = _luma(task)
    return Outcome(
        Verdict.CORRECTED if totals_hold and luma_error < 1e-6 else Verdict.NOT_REPRODUCIBLE,
        "The totals are right, the formulas in front of them are not: the one of the direct "
        "convolution lacks a factor 5 (a 5x5 kernel has 25 weights), the one of the bottleneck a "
        "factor 16. Every weight is multiplied once for each of the 28 x 28 outputs; the "
        f"bottleneck needs {by_torch[0] / by_torch[1]:.2f} times fewer multiplications.",
        (
            Row("luma 0.299 R + 0.587 G + 0.114 B", "a 1x1 convolution", f"error {luma_error:.1g}"),
            *_rows(*ours[0], *ours[1]),
            Row("by torch's counter", "", f"{by_torch[0]:,} and {by_torch[1]:,}"),
        ),
        (figure,),
    )


def _rows(direct: int, first: int, second: int) -> list[Row]:
    return [
        Row("5x5, 192 to 32 channels, on 28x28", f"{DIRECT:,}", f"28·28·32·5·5·192 = {direct:,}"),
        Row("the same without a factor 5", "as printed", f"28·28·32·5·192 = {direct // 5:,}"),
        Row(
            "through a 1x1 bottleneck of 16 channels",
            f"{BOTTLENECK:,}",
            f"28·28·16·192 + 28·28·32·5·5·16 = {first:,} + {second:,} = {first + second:,}",
        ),
        Row(
            "the same without a factor 16",
            "as printed",
            f"{first // BETWEEN + second:,} (left out of the first product) or "
            f"{first + second // BETWEEN:,} (of the second)",
        ),
    ]


def _luma(task: Task) -> tuple[float, Figure]:
    """The filter's largest error on an image whose colours are three digits, and its picture."""
    images, _ = source.load(task.root, train=False)
    colours = images[:3].float().unsqueeze(0) / 255  # (1, 3, 28, 28)
    grey = filters.luma()(colours)
    red, green, blue = colours[0].unbind()
    error = (grey - (0.299 * red + 0.587 * green + 0.114 * blue)).abs().max().item()
    panels = [("red, green, blue", colours[0].permute(1, 2, 0)), ("luma", grey[0, 0])]
    return error, drawing.save(
        drawing.pictures(panels, (0, 1)),
        task.folder / "luma.png",
        "Three test digits as the channels of one colour image, and its luma: green counts most, "
        "blue least.",
    )


def _by_torch(chain: Sequence[nn.Module]) -> int:
    image: Tensor = torch.zeros(1, INPUTS, SIDE, SIDE)
    with FlopCounterMode(display=False) as counter:
        nn.Sequential(*chain)(image)
    flops: int = counter.get_total_flops()
    # Each multiplication goes with an addition.
    return flops // 2
