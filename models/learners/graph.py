"""CUDA graphs: what a GPU is asked for is recorded once, and asked for again by one launch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.torch_version import TorchVersion

WARM_UPS = 3


def obstacle() -> str | None:
    """Why this torch should record nothing."""
    if torch.version.hip is not None:
        return "recording on ROCm has not been seen to work"
    if TorchVersion(torch.__version__) < "2.12":
        return "torch before 2.12 does not get over a recording that fails"
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
        # Other threads may go on asking the driver: NCCL's watchdog does.
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            function()
    before.wait_stream(stream)
    return graph.replay
