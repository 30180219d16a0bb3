"""What a GPU is asked for, seen on one that is not there: launches, variants, copies, waits."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial

import pytest
import torch
from helpers import TUNED, linear_problem
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from models.kernels.table import C3_TABLE, connections
from models.learners.fused import FusedIteration
from models.learners.iteration import Memory
from models.lenet import LeNet5
from models.losses import LOSSES

cuda = pytest.importorskip("models.kernels.conv_pool.cuda")
descent = pytest.importorskip("models.kernels.sgd.cuda")
lenet5 = pytest.importorskip("models.kernels.lenet5.cuda")


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

    launches = 0

    def __init__(self, guarded):
        self.guarded = guarded

    def __getitem__(self, grid):
        return self

    def __call__(self, *arguments, **constants):
        assert self.guarded == [True]
        self.launches += 1


@pytest.fixture
def launcher(monkeypatch):
    """Stands in for all kernels, each of which must be launched on the tensors' device."""
    guarded = []

    @contextmanager
    def device_of(tensor):
        guarded.append(True)
        yield
        guarded.pop()

    monkeypatch.setattr(torch.cuda, "device_of", device_of)
    launcher = Launcher(guarded)
    for module, name in (
        (cuda.kernels, "forward"),
        (cuda.gradient, "backward"),
        (cuda.gradient, "add_up"),
        (lenet5.kernels, "pick"),
        (lenet5.kernels, "head"),
        (lenet5.kernels, "dense_gradients"),
        (descent, "_run"),
    ):
        monkeypatch.setattr(module, name, launcher)
    return launcher


def test_kernels_are_launched_on_the_device_of_their_tensors(launcher):
    pairs = connections(C3_TABLE, 6)
    x, weight, bias = torch.zeros(2, 6, 14, 14), torch.zeros(60, 5, 5), torch.zeros(16)
    y, slope = cuda.forward(x, weight, bias, pairs, 0)
    cuda.backward(y, x, weight, pairs, 0, slope, True)
    data = linear_problem(0, dtype=torch.float32)
    rates, scale = torch.zeros(100), torch.ones(784)
    descent.sequential_sgd(*data, rates, LOSSES["mse"], scale)
    assert launcher.launches == 4


KERNELS = [
    *(cuda.kernels.forward, cuda.gradient.backward, cuda.gradient.add_up),
    *(lenet5.kernels.pick, lenet5.kernels.head, lenet5.kernels.dense_gradients),
]


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.__name__)
def test_one_compilation_serves_all_sizes(kernel):
    """Else Triton makes constants of what is 1 or divisible by 16, and compiles in a training."""
    limits = {"unit", "offset", "rotation", "scale", "shear", "shift"}  # no integers
    integers = [
        parameter
        for parameter in kernel.params
        if not parameter.is_constexpr
        and not parameter.name.endswith("_ptr")
        and parameter.name not in limits
    ]
    assert integers
    assert all(parameter.do_not_specialize for parameter in integers)


class Launches(TorchDispatchMode):
    """Counts operators that compute, which are the ones that launch."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name == "_fused_sgd_":  # does not know fake tensors
            self.found.append(name)
            return None
        result = function(*args, **(kwargs or {}))
        is_view = function.is_view or name in ("detach", "_unsafe_view", "_reshape_alias")
        if not is_view and name != "device" and "empty" not in name:
            self.found.append(name)
        return result


@pytest.fixture
def on_fake_gpu(monkeypatch, launcher):
    """Lets models take the way of a GPU, on fake tensors of one."""
    tables = [torch.zeros(61, dtype=torch.int32)] * 5
    monkeypatch.setattr(cuda, "_tables", lambda *_: tables)

    def move(model):
        for module in model.modules():
            for name, weight in module._parameters.items():
                module._parameters[name] = nn.Parameter(torch.empty(weight.shape, device="cuda"))
            for name, buffer in module._buffers.items():
                module._buffers[name] = torch.empty_like(buffer, device="cuda")
        return model

    return move


CONFIGURATIONS = {
    "original": LeNet5,
    "modern": partial(LeNet5, "modern"),
    "fast": partial(LeNet5, momentum=0.9, nesterov=True, standardize=True, schedule="one-cycle"),
    "tuned": partial(LeNet5, **TUNED),
}


def launches_of(make, move, launcher):
    """Names of what one iteration launches, and how often it launches a kernel of ours."""
    model = make()
    with FakeTensorMode(allow_non_fake_inputs=True):
        move(model)
        memory = Memory(model, torch.device("cuda"), 100, 2)
        optimizer = torch.optim.SGD(model.net.parameters(), **model.update._asdict())
        iteration = FusedIteration(model, memory, optimizer, None)
        launcher.launches = 0
        with Launches() as launches:
            iteration()
    return launches.found, launcher.launches


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_an_iteration_of_lenet5_is_eleven_launches(
    name, precision, on_fake_gpu, launcher, monkeypatch
):
    # Where there is no GPU, torch has no autocast for one.
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda _: precision == "bf16-mixed")
    found, kernels = launches_of(CONFIGURATIONS[name], on_fake_gpu, launcher)
    # The rate, the step and the counter, beside the kernels.
    assert found == ["index_select", "_fused_sgd_", "add_"]
    assert kernels == 8
