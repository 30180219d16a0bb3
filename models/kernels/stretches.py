"""How work is cut into pieces: in the same way for any number of threads."""

from __future__ import annotations

from numba.extending import register_jitable

from models.kernels.compiled import compiled

FEW = 8
"""Groups that are cut into single ones"""

MOST = 32
"""Chunks, since each has sums of its own"""


@register_jitable
def chunks_of(groups):
    """Into how many chunks so many groups are cut; none are one, with sums of 0."""
    size = max(1 if groups <= FEW else 2, -(-groups // MOST))
    return max(1, -(-groups // size))


def most_chunks(groups: int) -> int:
    """Into how many chunks so many groups or fewer are cut: nine are five, but eight are eight."""
    return max(int(chunks_of(fewer)) for fewer in range(groups + 1))


@compiled()
def begin_of(chunk, chunks, groups):
    """The first group of a chunk, and behind the last one's end."""
    return -(-chunk * groups // chunks)


@compiled()
def stretch(x, n, count):
    """Part n of `count` of an array, as equal as they can be."""
    return x[n * len(x) // count : (n + 1) * len(x) // count]
