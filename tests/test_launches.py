"""What a GPU is asked for, seen on one that is not there: launches, variants, copies, waits."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from helpers import linear_problem
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from models.kernels.table import C3_TABLE, connections
from models.losses import LOSSES

cuda = pytest.importorskip("models.kernels.conv_pool.cuda")
descent = pytest.importorskip("models.kernels.sgd.cuda")


class Waits(TorchDispatchMode):
    """Counts operators for which the CPU waits for the device, or copies between them."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__
        places = {
            tensor.device.type
            for tensor in [*args, result]
            if type(tensor) is not str and isinstance(tensor, torch.Tensor)
        }
        copies = name in ("_to_copy", "copy_", "lift_fresh_copy") and len(places) > 1
        if copies or name in ("_local_scalar_dense", "nonzero", "equal"):
            self.found.append(name)
        return result


@contextmanager
def fake_gpu():
    """Fake tensors of a device that is not there, and what waits for it."""
    waits = Waits()
    with FakeTensorMode(allow_non_fake_inputs=True), waits:
        yield waits.found


def test_a_wait_is_seen():
    with fake_gpu() as waits:
        x = torch.empty(3, device="cuda")
        torch.zeros(3).to("cuda")
        x.sum()
    assert waits == ["_to_copy"]


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_of_single_images_let_no_gpu_wait(loss):
    with fake_gpu() as waits:
        z = torch.empty(5, device="cuda")
        y = torch.empty(5, device="cuda", dtype=torch.int64)
        LOSSES[loss](z, y).sum()
        assert waits == []
        # As it was once done.
        LOSSES[loss].amounts(z)
    assert waits


class Launcher:
    """Stands in for a kernel; looks whether it is launched on the tensors' device."""

    def __init__(self, guarded):
        self.guarded, self.launches = guarded, 0

    def __getitem__(self, grid):
        return self

    def __call__(self, *arguments, **constants):
        assert self.guarded == [True]
        self.launches += 1


@pytest.fixture
def guarded(monkeypatch):
    """[True] inside of the context that makes a tensor's device the current one."""
    state = []

    @contextmanager
    def device_of(tensor):
        state.append(True)
        yield
        state.pop()

    monkeypatch.setattr(torch.cuda, "device_of", device_of)
    return state


def test_kernels_are_launched_on_the_device_of_their_tensors(guarded, monkeypatch):
    launcher = Launcher(guarded)
    monkeypatch.setattr(cuda.kernels, "forward", launcher)
    monkeypatch.setattr(cuda.gradient, "backward", launcher)
    monkeypatch.setattr(cuda.gradient, "add_up", launcher)
    monkeypatch.setattr(descent, "_run", launcher)
    pairs = connections(C3_TABLE, 6)
    x, weight, bias = torch.zeros(2, 6, 14, 14), torch.zeros(60, 5, 5), torch.zeros(16)
    y, slope = cuda.forward(x, weight, bias, pairs, 0)
    cuda.backward(y, x, weight, pairs, 0, slope, True)
    data = linear_problem(0, dtype=torch.float32)
    rates, scale = torch.zeros(100), torch.ones(784)
    descent.sequential_sgd(*data, rates, LOSSES["mse"], scale)
    assert launcher.launches == 4


@pytest.mark.parametrize("name", ["forward", "backward", "add_up"])
def test_one_compilation_serves_all_sizes(name):
    """Else Triton makes constants of what is 1 or divisible by 16, and compiles in a training."""
    kernel = getattr(cuda.kernels, name, None) or getattr(cuda.gradient, name)
    integers = [
        parameter
        for parameter in kernel.params
        if not parameter.is_constexpr and not parameter.name.endswith("_ptr")
    ]
    assert integers
    assert all(parameter.do_not_specialize for parameter in integers)
