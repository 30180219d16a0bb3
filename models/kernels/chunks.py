"""Divides work into pieces, in the same way for any number of threads."""

from __future__ import annotations

from numba.extending import register_jitable

from models.kernels.compiled import compiled

FEW = 8
"""Up to so many groups, each one is a chunk"""

MOST = 32
"""Largest number of chunks, since each has sums of its own"""


@register_jitable
def chunks_of(groups):
    """The number of chunks for a number of groups; without groups it is 1, with sums of 0."""
    size = max(1 if groups <= FEW else 2, -(-groups // MOST))
    return max(1, -(-groups // size))


def most_chunks(groups: int) -> int:
    """The most chunks for up to so many groups: nine groups are five, but eight are eight."""
    return max(int(chunks_of(fewer)) for fewer in range(groups + 1))


@compiled()
def begin_of(chunk, chunks, groups):
    """The first group of a chunk; for chunk = chunks, the number of groups."""
    return -(-chunk * groups // chunks)


@compiled()
def stretch(x, n, count):
    """Part n of `count` parts of an array, which are as equal as possible."""
    return x[n * len(x) // count : (n + 1) * len(x) // count]
