"""Several processes, started by torchrun, that work on one report."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def joined() -> Iterator[int]:
    """Connects the ranks of torchrun, if there are several; gives the number of this one."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield 0
        return
    # Only now, since it takes seconds: a report of finished parts needs nothing of it.
    import torch.distributed as dist

    dist.init_process_group("gloo")
    try:
        yield dist.get_rank()
    finally:
        dist.destroy_process_group()


def from_first(value: Any) -> Any:
    """What the first rank gives, on every rank."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return value
    import torch.distributed as dist

    box = [value]
    dist.broadcast_object_list(box)
    return box[0]
