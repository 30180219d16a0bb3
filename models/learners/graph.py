"""CUDA graphs: what a GPU is asked for is recorded once, and asked for again by one launch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch.torch_version import TorchVersion

WARM_UPS = 3


def obstacle() -> str | None:
    """Why this torch should record nothing."""
    if torch.version.hip is not None:
        return "recording on ROCm has not been seen to work"
    if TorchVersion(torch.__version__) < "2.11":
        return "torch before 2.11 has not been seen to get over a recording that fails"
    return None


def record(function: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """Records what a function launches on a GPU; returns what launches it again.

    Args:
        function: works on tensors that stay where they are, and looks at no value.
        device: of these tensors.

    Raises:
        Exception: of any kind, from torch or a compiler; the current stream is as before.
    """
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    before = torch.cuda.current_stream(device)
    stream.wait_stream(before)
    # The outer context, since that of a recording that fails leaves its stream current.
    with torch.cuda.device(device), torch.cuda.stream(stream):
        # What torch sets up at a first call, for this very stream, must not be recorded.
        for _ in range(WARM_UPS):
            function()
        graph = torch.cuda.CUDAGraph()
        pool = torch.cuda.graph_pool_handle()
        # Other threads may go on asking the driver: NCCL's watchdog does.
        recording = torch.cuda.graph(graph, pool, stream, capture_error_mode="thread_local")
        with _left_behind(pool), recording:
            function()
    before.wait_stream(stream)
    return graph.replay


@contextmanager
def _left_behind(pool: Any) -> Iterator[None]:
    """Lets a recording that fails go, with the memory and the random numbers it had for itself.

    Torch before 2.12 goes on with both: allocations end in an assertion, a random number in
    "offset increment outside graph capture".
    """
    try:
        yield
    except BaseException:
        if TorchVersion(torch.__version__) < "2.12":
            device = torch.cuda.current_device()
            # Where it failed before it began, there is nothing to leave.
            with suppress(RuntimeError):
                torch._C._cuda_endAllocateToPool(device, pool)
                torch._C._cuda_releasePool(device, pool)
            generator = torch.cuda.default_generators[device]
            generator.graphsafe_set_state(generator.clone_state())
        raise
