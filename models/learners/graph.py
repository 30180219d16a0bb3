"""CUDA graphs: the launches of a function are recorded once, and replayed by one launch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch.torch_version import TorchVersion

WARM_UPS = 3


def obstacle() -> str | None:
    """Why this version of torch should not record; None if it may."""
    if torch.version.hip is not None:
        return "recording on ROCm has not been seen to work"
    if TorchVersion(torch.__version__) < "2.11":
        return "torch before 2.11 has not been seen to get over a recording that fails"
    return None


def record(function: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """Records what a function launches on a GPU; returns a function that replays it.

    Args:
        function: works on tensors that stay in place, and reads no value back to the host.
        device: device of these tensors.

    Raises:
        Exception: of any kind, from torch or a compiler; the current stream is restored.
    """
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    before = torch.cuda.current_stream(device)
    stream.wait_stream(before)
    # An outer context, since a recording that fails leaves its stream current.
    with torch.cuda.device(device), torch.cuda.stream(stream):
        # What torch sets up at the first call on this stream must not be recorded.
        for _ in range(WARM_UPS):
            function()
        graph = torch.cuda.CUDAGraph()
        pool = torch.cuda.graph_pool_handle()
        # Other threads may call the driver meanwhile, as NCCL's watchdog does.
        recording = torch.cuda.graph(graph, pool, stream, capture_error_mode="thread_local")
        with _left_behind(pool), recording:
            function()
    before.wait_stream(stream)
    return graph.replay


@contextmanager
def _left_behind(pool: Any) -> Iterator[None]:
    """Releases the memory pool and the generator state of a recording that fails.

    Torch before 2.12 goes on using both: an allocation ends in an assertion, a random number in
    "offset increment outside graph capture".
    """
    try:
        yield
    except BaseException:
        if TorchVersion(torch.__version__) < "2.12":
            device = torch.cuda.current_device()
            # If the recording failed before it began, there is nothing to release.
            with suppress(RuntimeError):
                torch._C._cuda_endAllocateToPool(device, pool)
                torch._C._cuda_releasePool(device, pool)
            generator = torch.cuda.default_generators[device]
            generator.graphsafe_set_state(generator.clone_state())
        raise
