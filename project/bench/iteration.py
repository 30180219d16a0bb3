"""Where does the time of one iteration of LeNet-5 go, in the compiled call on one CPU thread?

`project.fit` trains with a clock in the call (`stamps.py`), so that the pieces and the time outside
of the call are parts of one run and add up to it; in turns, it trains without the clock, which
shows the clock's cost. The speed of the pieces is compared with the processor's peak.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np
import torch

from models.kernels import packages
from models.kernels.lanes import LANES
from models.nets import C3, LeNet5
from project.bench.fit import our_seconds_per_iteration
from project.bench.measure import CPU, interleaved
from project.errors import UserError

if TYPE_CHECKING:
    from project.bench.stamps import Stamped

BATCHES = (10, 100, 1000, 10_000)
IMAGES = 60_000  # that a run of project.fit trains on, in 20 to 600 iterations
OUTSIDE = "Python, Lightning, records"
CALL, FIT = "= compiled call", "= project.fit"
WITHOUT = "project.fit without the clock"
TURNS = 100_000  # of the loop that measures the peak
Row = dict[str, Any]


def run(
    c3: C3, root: Path, batches: Sequence[int], repeats: int, progress: Callable[[str], Any]
) -> list[Row]:
    """Returns a row for each piece and batch size, with its share of project.fit's iteration.

    Raises:
        UserError: there is no compiled call, or the processor has no time counter.
    """
    if lack := packages.lack("numba"):
        raise UserError(f"iteration takes the compiled call apart, but {lack}.")
    from project.bench.stamps import Stamped  # with Numba

    with _one_thread():
        stamped, peak = Stamped(), peak_flops(10 * repeats)
        rows = []
        for batch in batches:
            progress(f"batch {batch}: compiling")
            train = _training(c3, root, batch)
            with _clock_inside(stamped):
                train()
            train()
            progress(f"batch {batch}: project.fit")
            seconds = _median([_turn(stamped, train) for _ in range(repeats)])
            rows += _rows(seconds, _operations(c3, batch), batch, peak)
    return rows


def _training(c3: C3, root: Path, batch: int) -> Callable[[], tuple[int, float]]:
    """Returns a short training by project.fit, which returns its iterations and seconds per one."""
    count = min(600, max(20, IMAGES // batch))
    size = f"--data.batch_size={batch}"

    def train() -> tuple[int, float]:
        return count, our_seconds_per_iteration(f"lenet5-{c3}", root, CPU, count, size)

    return train


def _turn(stamped: Stamped, train: Callable[[], tuple[int, float]]) -> dict[str, float]:
    """Returns seconds per iteration: of its pieces, of a run with the clock, and without it."""
    from project.bench.stamps import ticks

    stamped.take()
    begin, first = time.perf_counter(), ticks()
    with _clock_inside(stamped):
        count, whole = train()
    last, end = ticks(), time.perf_counter()
    if last == first:
        raise UserError("this processor has no counter of time that programs may read.")
    tick = (end - begin) / (last - first) / count
    pieces = {name: tick * taken for name, taken in stamped.take().items()}
    call = sum(pieces.values())
    _, without = train()
    return {**pieces, CALL: call, OUTSIDE: whole - call, FIT: whole, WITHOUT: without}


def _median(turns: list[dict[str, float]]) -> dict[str, float]:
    """Returns the median turn as a whole, since medians of the pieces would not add up."""
    middle = sorted(turns, key=lambda seconds: seconds[FIT])[(len(turns) - 1) // 2]
    return middle | {WITHOUT: median(turn[WITHOUT] for turn in turns)}


def _rows(
    seconds: dict[str, float], operations: dict[str, int], batch: int, peak: float
) -> list[Row]:
    operations = operations | {CALL: sum(operations.values())}
    rows = []
    for name, value in seconds.items():
        flops = operations[name] / value if name in operations else None
        rows.append(
            {
                "piece": name,
                "batch": batch,
                "device": str(CPU),
                "seconds": value,
                "share": value / seconds[FIT],
                "gflops": flops and flops / 1e9,
                "of peak": flops and flops / peak,
                "peak": peak,
            }
        )
    return rows


def lines(rows: list[Row]) -> list[tuple[str, ...]]:
    """Returns the lines of the table, from the rows of `run`."""
    return [
        (
            str(row["batch"]),
            row["piece"],
            f"{1000 * row['seconds']:.3g} ms",
            f"{row['share']:.1%}",
            "" if row["gflops"] is None else f"{row['gflops']:.1f}",
            "" if row["of peak"] is None else f"{row['of peak']:.0%}",
        )
        for row in rows
    ]


def note(rows: list[Row]) -> str:
    """Describes the peak that the shares refer to."""
    return f"peak, multiply-adds in registers: {rows[0]['peak'] / 1e9:.1f} GFLOPS"


def _operations(c3: C3, batch: int) -> dict[str, int]:
    from models.kernels.conv_pool.cpu import Convolution, shapes_of
    from project.bench.operations import operations

    net = LeNet5(c3)
    blocks = (Convolution(*layer.arguments()) for layer in (net.c1, net.c3))
    return operations(net, shapes_of(torch.empty(0, 1, 28, 28), *blocks), batch)


def peak_flops(repeats: int) -> float:
    """Returns operations per second of vector multiply-adds in registers, on one core."""
    from project.bench.stamps import CHAINS, multiply_add

    numbers = np.repeat(np.array([0.5, 1], np.float32), LANES)
    best = min(interleaved({"": lambda: multiply_add(TURNS, numbers)}, repeats)[""].seconds)
    return 2 * LANES * CHAINS * TURNS / best


@contextmanager
def _clock_inside(stamped: Stamped) -> Iterator[None]:
    """Makes training call the iteration with the clock."""
    from models.kernels.lenet5 import cpu

    with patch.object(cpu, "descent", stamped.descent):
        yield


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
