"""Problem 3: what 1x1 convolutions are good for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from data import source
from project.reproduce import drawing, filters
from project.reproduce.record import Erratum, Figure, Outcome, Row, Task, Verdict
from project.reproduce.theory import multiplications

SIDE = 28
INPUTS, BETWEEN, OUTPUTS = 192, 16, 32
# The products as the document prints them, with the totals 120M and 12.4M.
PRINTED_DIRECT = (28 * 28 * 32 * 5 * 192,)
PRINTED_BOTTLENECK = (28 * 28 * 1 * 1 * 192, 28 * 28 * 32 * 5 * 5 * 16)


def run(task: Task) -> Outcome:
    """Counts multiplications twice, by hand and by torch, and turns colours into grey."""
    direct = [nn.Conv2d(INPUTS, OUTPUTS, 5, padding=2)]
    bottleneck = [nn.Conv2d(INPUTS, BETWEEN, 1), nn.Conv2d(BETWEEN, OUTPUTS, 5, padding=2)]
    ours = [multiplications(chain, SIDE, SIDE) for chain in (direct, bottleneck)]
    counted = [by_torch(chain) for chain in (direct, bottleneck)]
    luma_error, figure = _luma(task)
    holds = ours == counted and luma_error < 1e-6
    return Outcome(
        Verdict.CORRECTED if holds else Verdict.NOT_REPRODUCIBLE,
        "The totals are right, the products in front of them are not: that of the direct "
        "convolution lacks a factor 5 (a 5x5 kernel has 25 weights), and of the bottleneck the "
        "first product lacks the factor 16; the second one is right. Every weight is multiplied "
        "once for each of the 28 x 28 outputs.",
        (
            Row("luma 0.299 R + 0.587 G + 0.114 B", "a 1x1 convolution", f"error {luma_error:.1g}"),
            *_rows(sum(ours[0]), sum(ours[1])),
        ),
        (figure,),
        errata(*counted),
    )


def _rows(direct: int, bottleneck: int) -> list[Row]:
    return [
        Row("5x5, 192 to 32 maps, on 28x28", "120M multiplications", f"{direct:,}"),
        Row("through a 1x1 convolution to 16 maps", "12.4M multiplications", f"{bottleneck:,}"),
        Row("how many fewer", "10 times", f"{direct / bottleneck:.2f} times"),
    ]


def errata(direct: Sequence[int], bottleneck: Sequence[int]) -> tuple[Erratum, Erratum]:
    """Returns the printed products beside the counts of each layer."""
    first, second = bottleneck
    return (
        Erratum(
            "28·28·32·5·192 = 120M",
            f"28·28·32·5·5·192 = {sum(direct):,}",
            f"torch counts {sum(direct):,}; the printed product is {PRINTED_DIRECT[0]:,}, "
            f"{sum(direct) // PRINTED_DIRECT[0]} times too small",
        ),
        Erratum(
            "28·28·1·1·192 + 28·28·32·5·5·16 = 12.4M",
            f"28·28·1·1·192·16 + 28·28·32·5·5·16 = {first + second:,}",
            f"torch counts {first:,} + {second:,}; the first product is printed as "
            f"{PRINTED_BOTTLENECK[0]:,}, {first // PRINTED_BOTTLENECK[0]} times too small, the "
            f"second as {PRINTED_BOTTLENECK[1]:,}",
        ),
    )


def _luma(task: Task) -> tuple[float, Figure]:
    """Returns the largest error on an image whose colours are three digits, and its figure."""
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


def by_torch(chain: Sequence[nn.Module]) -> list[int]:
    """Returns the multiplications of each layer, as torch counts them."""
    image: Tensor = torch.zeros(1, INPUTS, SIDE, SIDE)
    counts = []
    for layer in chain:
        with FlopCounterMode(display=False) as counter:
            image = layer(image)
        # Torch counts an addition with each multiplication.
        counts.append(counter.get_total_flops() // 2)
    return counts
