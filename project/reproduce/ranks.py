"""Lets several processes, started by torchrun, work on one report."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from project import processes
from project.errors import UserError

if TYPE_CHECKING:
    import torch


@contextmanager
def joined() -> Iterator[int]:
    """Connects the ranks of torchrun, if there are several; yields the number of this one.

    Raises:
        UserError: srun has started several processes that know nothing of each other.
    """
    processes.settle()
    if (processes.ranks() or 1) == 1:
        if processes.srun_tasks() > 1:
            raise UserError(
                f"srun has started {processes.srun_tasks()} of this program, which would write one "
                "report: use srun --ntasks 1, or torchrun to share the seeds of Table 1 out."
            )
        yield 0
        return
    # Imported only now: it takes seconds, and a report of finished parts does not need it.
    import torch.distributed as dist

    dist.init_process_group("gloo")
    try:
        yield dist.get_rank()
    finally:
        dist.destroy_process_group()


def from_first(value: Any) -> Any:
    """Returns the value of the first rank on every rank."""
    if (processes.ranks() or 1) == 1:
        return value
    import torch.distributed as dist

    box = [value]
    dist.broadcast_object_list(box)
    return box[0]


def place() -> tuple[int, int]:
    """Returns the number of connected ranks, and that of this one."""
    import torch.distributed as dist

    return (dist.get_world_size(), dist.get_rank()) if dist.is_initialized() else (1, 0)


def own_gpu() -> torch.device | None:
    """Returns the GPU of this rank, which others on the machine may share; None without one."""
    import torch

    if not torch.cuda.is_available():
        return None
    rank = int(os.environ.get("LOCAL_RANK", 0))
    return torch.device("cuda", rank % torch.cuda.device_count())


def gathered(own: Any) -> list[Any]:
    """Returns the values of all ranks, in their order."""
    ranks, _ = place()
    if ranks == 1:
        return [own]
    import torch.distributed as dist

    parts: list[Any] = [None] * ranks
    dist.all_gather_object(parts, own)
    return parts
