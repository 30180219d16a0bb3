"""Connection tables: which input maps feed each output map of a partial convolution."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

ConnectionTable = Sequence[Sequence[int]]

# Table I of LeCun et al., "Gradient-Based Learning Applied to Document Recognition" (1998):
# the S2 maps that feed each of the 16 maps of C3, 60 connections in all.
C3_TABLE: ConnectionTable = (
    (0, 1, 2),
    (1, 2, 3),
    (2, 3, 4),
    (3, 4, 5),
    (0, 4, 5),
    (0, 1, 5),
    (0, 1, 2, 3),
    (1, 2, 3, 4),
    (2, 3, 4, 5),
    (0, 3, 4, 5),
    (0, 1, 4, 5),
    (0, 1, 2, 5),
    (0, 1, 3, 4),
    (1, 2, 4, 5),
    (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)


def full_table(in_channels: int, out_channels: int) -> ConnectionTable:
    """The table of an ordinary convolution: every output map reads every input map."""
    return (tuple(range(in_channels)),) * out_channels


def connections(table: ConnectionTable, in_channels: int) -> Tensor:
    """The table as a list of pairs.

    Args:
        table: for each output map, the input maps it reads.
        in_channels: number of input maps.

    Returns:
        (P, 2) int64, a row (output map, input map) for each connection, map by map.

    Raises:
        ValueError: an empty table or row, an input map repeated within a row or out of range.

    >>> connections([[0, 2], [1]], in_channels=3).tolist()
    [[0, 0], [0, 2], [1, 1]]
    """
    if not table:
        raise ValueError("the connection table has no output map")
    for output, inputs in enumerate(table):
        if not inputs:
            raise ValueError(f"the connection table gives output map {output} no input")
        if len(set(inputs)) < len(inputs):
            raise ValueError(f"the connection table repeats an input of output map {output}")
        for source in inputs:
            if not 0 <= source < in_channels:
                raise ValueError(
                    f"the connection table feeds output map {output} from input map {source}, "
                    f"but there are only maps 0 to {in_channels - 1}"
                )
    return torch.tensor([(output, source) for output, row in enumerate(table) for source in row])
