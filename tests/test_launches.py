"""What a GPU is asked for, seen on one that is not there: launches, variants, copies, waits."""

from __future__ import annotations

import re
from collections import defaultdict
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from helpers import TUNED, linear_problem, trainer
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from data.blocks import Block
from models import metrics
from models.kernels import doors, looks, sgd, trust
from models.kernels.conv_pool import dispatch, operator, proof
from models.kernels.table import C3_TABLE, connections
from models.learners import Run, fused
from models.learners.fused import Fused, FusedIteration
from models.learners.iteration import Iteration, Memory
from models.learners.recorded import Recorded
from models.learners.sequential import Sequential
from models.lenet import LeNet5
from models.lenet1998 import LeNet1998
from models.linear import Linear
from models.losses import LOSSES
from models.schedules import Length
from project.doctor import speed

cuda = pytest.importorskip("models.kernels.conv_pool.cuda")
descent = pytest.importorskip("models.kernels.sgd.cuda")
lenet5 = pytest.importorskip("models.kernels.lenet5.cuda")
update = pytest.importorskip("models.kernels.lenet5.cuda_update")


moves_fakes = pytest.mark.skipif(
    torch.__version__ < (2, 11), reason="fake tensors of an older torch need a driver to move"
)


class Waits(TorchDispatchMode):
    """Counts operators for which the CPU waits for the device."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = function.overloadpacket.__name__
        if name == "_fused_sgd_":  # does not know fake tensors
            return None
        if name == "_local_scalar_dense" and args[0].device.type == "cpu":
            return 0.5  # a fake tensor has no numbers
        result = function(*args, **kwargs)
        places = {
            tensor.device.type
            for tensor in [*args, result]
            if type(tensor) is not str and isinstance(tensor, torch.Tensor)
        }
        copies = name in ("_to_copy", "copy_", "lift_fresh_copy") and len(places) > 1
        if copies and kwargs.get("non_blocking"):
            assert args[0].device.type == "cpu", "nobody knows when it has come"
            copies = False
        if copies or name in ("_local_scalar_dense", "nonzero", "equal", "_unique2"):
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
        torch.zeros(3).to("cuda:0")
        torch.zeros(3).to("cuda:0", non_blocking=True)
        x.sum()
    assert waits == ["_to_copy"]


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_of_single_images_let_no_gpu_wait(loss):
    with fake_gpu() as waits:
        z = torch.empty(5, device="cuda")
        y = torch.empty(5, device="cuda", dtype=torch.int64)
        LOSSES[loss](z, y).sum()
        LOSSES[loss].amounts(z)
    assert waits == []


def test_an_evaluation_waits_for_no_look_at_labels_or_losses():
    counted = metrics.of_stages(10)["test"]
    with fake_gpu() as waits:
        counted.to("cuda")
        waits.clear()
        labels = torch.zeros(5, dtype=torch.int64, device="cuda")
        counted["confusion"].update(labels, labels)
        counted["loss"].update(torch.zeros(5, device="cuda"))
    assert waits == []


class Launcher:
    """Stands in for kernels; looks whether they are launched on the tensors' device."""

    def __init__(self, guarded):
        self.guarded = guarded
        self.launches = 0
        self.variants = set()

    def launch(self, kernel, *arguments, **options):
        assert self.guarded == [True]
        self.launches += 1
        given = dict(zip(kernel.arg_names, arguments, strict=False)) | options
        constants = [(p.name, given[p.name]) for p in kernel.params if p.is_constexpr]
        self.variants.add((kernel.__name__, *constants))


PLACES = [
    *((cuda.kernels, "forward"), (cuda.gradient, "backward"), (cuda.gradient, "add_up")),
    *((lenet5.kernels, "pick"), (lenet5.kernels, "head"), (lenet5.kernels, "dense_gradients")),
    *((update, "step"), (descent, "_run")),
]
KERNELS = [getattr(module, name) for module, name in PLACES]


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
    for kernel, place in zip(KERNELS, PLACES, strict=True):
        by_grid = defaultdict(lambda kernel=kernel: partial(launcher.launch, kernel))
        monkeypatch.setattr(*place, by_grid)
    return launcher


@pytest.mark.parametrize(("c5", "f6"), [(100, 84), (160, 84), (120, 96), (120, 64)])
def test_dense_layers_of_other_widths_are_not_for_the_kernels(c5, f6, launcher):
    model = LeNet5()
    model.net.c5, model.net.f6 = nn.Linear(400, c5), nn.Linear(c5, f6)
    model.net.output = nn.Linear(f6, 10)
    expected = rf"expected dense layers of \(400, 120, 84\) numbers, got \(400, {c5}, {f6}\)"
    parameters = [weight.detach() for weight in model.net.parameters()]
    layers = model.net.c1.arguments(), model.net.c3.arguments()
    memory = Memory(model, torch.device("cpu"), 5, 1)
    options = {"is_rounded": False}
    with pytest.raises(ValueError, match=expected):
        lenet5.differentiate(
            memory, layers, parameters, parameters, model.design, model.distortion, **options
        )
    assert launcher.launches == 0
    with patch.object(fused.dispatch, "choose", lambda *_: "cuda"):
        assert re.fullmatch(expected, fused._other_sizes(model, CUDA))


def test_kernels_are_launched_on_the_device_of_their_tensors(launcher):
    pairs = connections(C3_TABLE, 6)
    x, weight, bias = torch.zeros(2, 6, 14, 14), torch.zeros(60, 5, 5), torch.zeros(16)
    y, slope = cuda.forward(x, weight, bias, pairs, 0)
    cuda.backward(y, x, weight, pairs, 0, slope, True)
    data = linear_problem(0, dtype=torch.float32)
    rates, scale = torch.zeros(100), torch.ones(784)
    descent.sequential_sgd(*data, rates, LOSSES["mse"], scale)
    assert launcher.launches == 4


@pytest.mark.parametrize("kernel", [*KERNELS[:6], descent._run], ids=lambda kernel: kernel.__name__)
def test_one_compilation_serves_all_sizes_of_batches(kernel):
    """Else Triton makes constants of what is 1 or divisible by 16, and compiles in a training."""
    limits = {"unit", "offset", "rotation", "scale", "shear", "shift", "elastic"}  # no integers
    limits.add("size")  # the pixels of an image, which are those of the training ahead of it, too
    integers = [
        parameter
        for parameter in kernel.params
        if not parameter.is_constexpr
        and not parameter.name.endswith("_ptr")
        and parameter.name not in limits
    ]
    assert integers
    assert all(parameter.do_not_specialize for parameter in integers)


def test_a_test_run_compiles_for_the_device_of_its_trainer(monkeypatch):
    asked = []
    monkeypatch.setattr(
        "models.layers.conv_pool.compile_ahead",
        lambda net, device, gradient: asked.append((device.type, gradient)),
    )
    model = LeNet5()
    strategy = SimpleNamespace(root_device=CUDA)
    model._trainer = SimpleNamespace(strategy=strategy, precision="32-true")
    model.setup("test")
    assert asked == [("cuda", False)]


@pytest.mark.parametrize("batch", [1, 7, 100])
@pytest.mark.parametrize("c3", ["original", "modern"])
def test_all_that_lenet5_launches_has_been_compiled_ahead(c3, batch, launcher, monkeypatch):
    """On the CPU's tensors: those of a device that is not there take another way."""

    def fused_two(x, first, second):
        return operator._Eager.apply(operator._Eager.apply(x, *first)[0], *second)[0]

    monkeypatch.setattr(operator, "_kernels", lambda x: cuda)
    monkeypatch.setattr(proof, "fused_two", fused_two)
    monkeypatch.setattr(trust, "obstacle", lambda *_, **__: None)
    dispatch.compile_ahead(torch.device("cpu"), gradient=True)
    ahead, launcher.variants = launcher.variants, set()
    assert len(ahead) == 5  # forward and backward of both layers, and the sum of parts
    model = LeNet5(c3)
    layers = model.net.c1.arguments(), model.net.c3.arguments()
    fused_two(torch.zeros(batch, 1, 28, 28), *layers).sum().backward()
    assert launcher.variants == ahead
    launcher.variants.clear()
    memory = Memory(model, torch.device("cpu"), batch, 1)
    FusedIteration(model, memory, model.configure_optimizers(), None)()
    of_blocks = ("forward", "backward", "add_up")
    assert {variant for variant in launcher.variants if variant[0] in of_blocks} == ahead


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
    # A fake tensor has no address.
    monkeypatch.setattr(update, "tiles", lambda *_: torch.zeros(124, 4, dtype=torch.int64))

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


@moves_fakes
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_an_iteration_of_lenet5_is_ten_launches(
    name, precision, on_fake_gpu, launcher, monkeypatch
):
    # Where there is no GPU, torch has no autocast for one.
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda _: precision == "bf16-mixed")
    found, kernels = launches_of(CONFIGURATIONS[name], on_fake_gpu, launcher)
    # The counter, beside the kernels.
    assert found == ["add_"]
    assert kernels == 9


CUDA = torch.device("cuda")


def recorded_by(kind, model, run, monkeypatch):
    """The learner, whose recordings are calls; what it proves is no matter here."""
    monkeypatch.setattr(kind, "_record", lambda self: None)
    monkeypatch.setattr(kind.iteration, "reads", lambda *_: [])
    learner = object.__new__(kind)
    Recorded.__init__(learner, model, run)
    memory = Memory(model, CUDA, 100, 2)
    learner._launch = kind.iteration(model, memory, run.optimizer, None)
    learner._iterations, learner._read = {100: learner._launch}, []
    return learner


def learner_of(model, run, monkeypatch):
    """What would learn on a GPU."""
    if isinstance(model, Linear):
        monkeypatch.setattr(sgd, "choose", lambda *_: "cuda")
        return Sequential(model, run)
    kind = Recorded if isinstance(model, LeNet1998) else Fused
    return recorded_by(kind, model, run, monkeypatch)


@moves_fakes
@pytest.mark.parametrize("name", speed.experiments())
def test_no_experiment_waits_for_the_gpu_inside_a_block(
    name, on_fake_gpu, launcher, monkeypatch, tmp_path
):
    looked_at = []
    monkeypatch.setattr(looks, "_look", lambda x: looked_at.append(x.device.type) or (0, 0))
    monkeypatch.setattr(doors, "_look_once", lambda *_: None)  # before the first block
    # Of a device that is not there, autograd finds no context.
    monkeypatch.setattr(torch.autograd, "grad", lambda _, at: [torch.empty_like(x) for x in at])
    model, _, _ = speed.build(name)
    sizes = np.array([1] * 16 if isinstance(model, Linear) else [100, 100, 100, 60])
    order = torch.zeros(sizes.sum(), dtype=torch.int64)
    with fake_gpu() as waits:
        on_fake_gpu(model)
        optimizer = model.configure_optimizers()
        run = model._run = Run(CUDA, "32-true", 1, int(sizes[0]), optimizer, is_scheduled=True)
        model._learner = learner_of(model, run, monkeypatch)
        images = torch.empty(300, 28, 28, dtype=torch.uint8, device=CUDA)
        labels = torch.empty(300, dtype=torch.int64, device=CUDA)
        block = Block(images, labels, order, sizes, np.zeros_like(sizes), sizes)
        waits.clear()  # of what is set up
        looked_at.clear()
        moved = model._apply_batch_transfer_handler(block, CUDA, 0)
        model.trainer, model._length = trainer(tmp_path), Length(600, 6000)
        model.trainer.strategy.optimizers = [optimizer]
        outputs = model.training_step(moved, 0)
        assert waits == []
        assert outputs["losses"].device.type == "cuda"
    assert looked_at == ["cpu"]


def test_an_order_that_came_to_the_gpu_another_way_is_looked_at_there(on_fake_gpu, monkeypatch):
    looked_at = []
    monkeypatch.setattr(looks, "_look", lambda x: looked_at.append(x.device.type) or (0, 300))
    with fake_gpu():
        images = torch.empty(300, 28, 28, dtype=torch.uint8, device=CUDA)
        order = torch.empty(3, dtype=torch.int64, device=CUDA)
        with pytest.raises(ValueError, match="expected order from 0 to 299, got 300"):
            doors.check_images(images, (28, 28), order)
    assert looked_at == ["cuda"]


def test_an_iteration_of_1998_is_launched_operator_by_operator():
    """Counted on the CPU, since autograd goes to no device that is not there."""
    model = LeNet1998()
    memory = Memory(model, torch.device("cpu"), 100, 2)
    iteration = Iteration(model, memory, model.configure_optimizers(), None)
    with Launches() as launches:
        iteration()
    assert "convolution_backward" in launches.found
    assert len(launches.found) <= 150, len(launches.found)
