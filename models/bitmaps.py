"""The codes of LeNet-5's output layer: a bitmap of 7x12 pixels for each digit.

LeCun et al. 1998 (II.B, Figure 3) use a stylised font for all of ASCII, so that characters that
look alike have similar codes. The digits here are drawn in that style, not copied from it.
"""

from __future__ import annotations

import torch
from torch import Tensor

DRAWN = """
.......  .......  .......  .......  .......  .......  .......  .......  .......  .......
..###..  ...##..  .#####.  .#####.  .....#.  #######  ..####.  #######  .#####.  .#####.
.#...#.  ..###..  ##...##  ##...##  ....##.  #......  .##....  ......#  ##...##  ##...##
##...##  .####..  #.....#  ......#  ...###.  #......  ##.....  .....##  #.....#  #.....#
#.....#  ...##..  ......#  .....##  ..##.#.  ######.  #......  .....#.  ##...##  #.....#
#.....#  ...##..  .....##  ...###.  .##..#.  .....##  ######.  ....##.  .#####.  ##...##
#.....#  ...##..  ....##.  .....##  ##...#.  ......#  ##...##  ....#..  ##...##  .######
#.....#  ...##..  ...##..  ......#  #######  ......#  #.....#  ...##..  #.....#  ......#
##...##  ...##..  ..##...  ......#  .....#.  ......#  #.....#  ...#...  #.....#  .....##
.#...#.  ...##..  .##....  ##...##  .....#.  ##...##  ##...##  ..##...  ##...##  ....##.
..###..  .######  #######  .#####.  .....#.  .#####.  .#####.  ..#....  .#####.  .####..
.......  .......  .......  .......  .......  .......  .......  .......  .......  .......
"""


def bitmaps() -> Tensor:
    """The codes of the ten digits, (10, 84) float32: +1 for ink, -1 for paper, row by row."""
    rows = [line.split() for line in DRAWN.split("\n") if line]
    digits = zip(*rows, strict=True)
    return torch.tensor([[1.0 if dot == "#" else -1.0 for dot in "".join(d)] for d in digits])
