"""The Triton kernels: on a GPU where there is one, else in Triton's interpreter on the CPU."""

from __future__ import annotations

import os
import sys

import pytest
import torch
from helpers import REPOSITORY, python

# The switch is read when Triton is imported, which other tests may have done: hence a process.
INTERPRETED = """
import random
import torch
from helpers import assert_block_close, block_tensors, output_and_gradients
from models.kernels.conv_pool import cuda, reference
from models.kernels.table import connections

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, pairs, padding):
        y, slope = cuda.forward(x, weight, bias, pairs, padding)
        ctx.save_for_backward(x, weight, pairs, slope)
        ctx.padding = padding
        return y

    @staticmethod
    def backward(ctx, grad):
        x, weight, pairs, slope = ctx.saved_tensors
        want_input = ctx.needs_input_grad[0]
        dx, dw, db = cuda.backward(grad, x, weight, pairs, ctx.padding, slope, want_input)
        return dx, dw, db, None, None


SHAPES = [(1, 1, 6, 6, 0, 1), (2, 3, 7, 9, 1, 3), (3, 2, 6, 11, 2, 4), (9, 4, 8, 6, 0, 2)]
if DEVICE == "cuda":
    SHAPES += [(100, 6, 14, 14, 0, 16), (101, 1, 28, 28, 2, 6), (8, 8, 40, 33, 1, 20)]
for seed, (batch, maps, height, width, padding, outputs) in enumerate(SHAPES):
    random.seed(seed)
    table = [random.sample(range(maps), random.randint(1, maps)) for _ in range(outputs)]
    pairs = connections(table, maps)
    inputs = block_tensors(seed, batch, maps, height, width, pairs, outputs, 5)
    expected = output_and_gradients(reference.conv_pool, inputs, pairs, padding)
    inputs, pairs = [t.float().to(DEVICE) for t in inputs], pairs.to(DEVICE)
    actual, again = (output_and_gradients(Fused.apply, inputs, pairs, padding) for _ in range(2))
    assert_block_close([t.cpu() for t in actual], expected)
    assert all(torch.equal(a, b) for a, b in zip(actual, again)), "not the same bits"
"""

HEAD = """
from types import SimpleNamespace
import torch
import torch.nn.functional as F
from helpers import relative_error
from models import nets
from models.distortion import distort
from models.kernels.distortion import NONE, Distortion, waves
from models.kernels.lenet5 import cuda
from models.kernels.lenet5.design import LENET5

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)


def laid_out(batch, classes):
    laid = {
        "images": torch.randint(0, 256, (2, batch, 28, 28), dtype=torch.uint8),
        "labels": torch.randint(0, classes, (2, batch)), "numbers": None, "waves": None,
        "shares": torch.tensor([0.5, 1 / batch]), "losses": torch.zeros(2), "k": torch.tensor([1]),
    }
    return {name: part if part is None else part.to(DEVICE) for name, part in laid.items()}


design = LENET5._replace(paper=-0.4, ink=2.8)
for distortion in (NONE, Distortion(10, 0.1, 0.1, 2), Distortion(10, 0.1, 0.1, 2, elastic=1.5)):
    laid = laid_out(4, 10)
    numbers = 2 * torch.rand(2, 4, distortion.numbers) - 1
    if any(distortion):
        laid |= {"numbers": numbers.to(DEVICE), "waves": torch.from_numpy(waves(28)).to(DEVICE)}
    images = laid["images"][1].cpu().float()
    expected = distort(images, distortion, numbers[1]) if any(distortion) else images
    x = cuda._picked(SimpleNamespace(**laid), design, distortion)
    expected = expected.double() / design.unit + design.paper
    assert relative_error(x.cpu().double().squeeze(1), expected) < 1e-5, distortion

for batch, classes, is_rounded in ((11, 10, False), (3, 47, False), (2, 10, True)):
    laid = laid_out(batch, classes)
    dense = nets.LeNet5(classes=classes)
    parameters = list(dense.parameters())[4:]
    features = torch.rand(batch, 16, 5, 5) - 0.5
    place = [p.detach().to(DEVICE) for p in parameters]
    gradients = [torch.full_like(p, float("nan")) for p in place]
    at = [SimpleNamespace(**laid), features.to(DEVICE), place, gradients, is_rounded]
    dx = cuda._dense(*at)
    first = [g.clone() for g in gradients]
    assert torch.equal(cuda._dense(*at), dx)
    assert all(torch.equal(a, b) for a, b in zip(gradients, first)), "not the same bits"
    x = features.double().requires_grad_()
    logits = dense.double().classify(x)
    loss = F.cross_entropy(logits, laid["labels"][1].cpu())
    expected = torch.autograd.grad(loss, [x, *list(dense.parameters())[4:]])
    bound = 0.03 if is_rounded else 2e-6
    found = [laid["losses"][1], dx, *gradients]
    expected = [loss.detach(), *expected]
    errors = [relative_error(a.cpu().double(), e) for a, e in zip(found, expected)]
    assert max(errors) < bound, (batch, errors)
    assert not is_rounded or max(errors) > 1e-4, "nothing is rounded"
"""

DESCENT = """
import torch
from helpers import descend, linear_problem
from models.losses import LOSSES
from models.kernels.sgd import cuda, sequential_sgd

GPU = torch.cuda.is_available()


def launch(data, lr, loss, scale):
    if GPU:
        return descend("cuda", [tensor.cuda() for tensor in data], lr, loss, scale)
    images, labels, order, weight, bias = data
    weight, bias = weight.clone(), bias.clone()
    lrs = torch.full((order.shape[1],), lr, dtype=weight.dtype)
    scales = torch.full(images.shape[1:], scale, dtype=weight.dtype)
    losses = cuda.sequential_sgd(images, labels, order, weight, bias, lrs, LOSSES[loss], scales)
    return {"weight": weight, "bias": bias, "losses": losses}


for loss in LOSSES:
    for dtype, size, scale, lr in (
        (torch.float64, 784, 1 / 255, 0.03), (torch.float64, 9, 1 / 255, 0.03),
        (torch.float32, 784, 1 / 255, 0.03), (torch.float64, 784, 1.0, 1e-4),
    ):
        data = linear_problem(7, size=size, runs=3, iterations=12, dtype=dtype)
        expected = descend("reference", data, lr, loss, scale)
        actual = launch(data, lr, loss, scale)
        # A run by itself, one after the other.
        images, labels, *of_runs = data
        alone = [launch((images, labels, *(part[s:][:1] for part in of_runs)), lr, loss, scale)
                 for s in range(3)]
        for name, value in actual.items():
            close = 1e-9 if dtype == torch.float64 else 1e-4
            torch.testing.assert_close(value.cpu(), expected[name], rtol=close, atol=close / 100)
            assert torch.equal(value, torch.cat([run[name] for run in alone])), "not the same bits"
    for bias in (-1e30, -800.0, 800.0, 1e30):
        images, labels, order, weight, _ = linear_problem(0, iterations=3, dtype=torch.float32)
        data = images, labels, order, weight, torch.tensor([bias])
        assert all(value.isfinite().all() for value in launch(data, 1e-4, loss, 1.0).values())
"""

COMPILED = """
import itertools, os, re, subprocess, sys, tempfile
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from models.kernels.conv_pool import cuda
from models.kernels.lenet5 import cuda as lenet5
from models.kernels.lenet5 import cuda_update
from models.kernels.sgd import cuda as descent

FLOATS = {"x_ptr", "weight_ptr", "bias_ptr", "y_ptr", "slope_ptr", "grad_ptr", "dx_ptr",
          "parts_ptr", "dw_ptr", "db_ptr", "parts2_ptr", "dw2_ptr", "db2_ptr"}
OF_NET = {"images_ptr": "*u8", "labels_ptr": "*i64", "k_ptr": "*i64", "tiles_ptr": "*i64",
          "batch": "i32", "classes": "i32"}
OF_DESCENT = {"images_ptr": "*u8", "labels_ptr": "*i64", "order_ptr": "*i64"}
CONSTANTS = {"BLOCK": cuda.BLOCK, "TAPS": cuda.TAPS, "CHUNKS": cuda.CHUNKS, "SIZE": 1024}
OF_LENET5 = {"NUMBERS": 56, "OF_MAP": 6, "WAVES": 5, "SIZE": 28, "PIXELS": 1024,
             "X": lenet5.X, "C5": lenet5.C5, "F6": lenet5.F6, "WIDTH": lenet5.WIDTH, "CLASSES": 16,
             "COLUMNS": lenet5.COLUMNS, "IS_ROUNDED": False,
             "HAS_VELOCITY": True, "IS_NESTEROV": True,
             "TILE": cuda_update.TILE}


LAYERS = {
    "C1": {"MAPS": 1, "HEIGHT": 28, "WIDTH": 28, "ROWS": 14, "COLUMNS": 14, "OUTPUTS": 6,
           "PADDING": 2},
    "C3": {"MAPS": 6, "HEIGHT": 14, "WIDTH": 14, "ROWS": 5, "COLUMNS": 5, "OUTPUTS": 16,
           "PADDING": 0},
}


def constants_of(kernel, layer):
    known = CONSTANTS | LAYERS.get(layer, {})
    if kernel in NET:
        known = OF_LENET5 | (lenet5.TILE if kernel is lenet5.kernels.dense_gradients else {})
    return {name: known[name] for name in kernel.arg_names if name in known}


def kind(name, kernel, constants):
    if name in constants:
        return "constexpr"
    if kernel in NET:
        return OF_NET.get(name, "*fp32" if name.endswith("_ptr") else "fp32")
    if kernel is descent._run:
        return OF_DESCENT.get(name, "*fp32" if name.endswith("_ptr") else "i32")
    return "*fp32" if name in FLOATS else "*i32" if name.endswith("_ptr") else "i32"


def sass(compiled):
    tools = os.path.join(os.path.dirname(triton.__file__), "backends", "nvidia", "bin")
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        done = subprocess.run(
            [os.path.join(tools, "cuobjdump"), "-sass", "-res-usage", file.name],
            capture_output=True, text=True, check=True,
        )
    return done.stdout


def bodies(text):
    '''The instructions of each innermost loop.'''
    lines = [(int(at, 16), what) for at, what in
             re.findall(r"/\\*([0-9a-f]{4,5})\\*/ +(?:@!?U?P\\d+ +)?([^;]+);", text)]
    back = [(int(to, 16), at) for at, what in lines
            for to in re.findall(r"^BRA.* 0x([0-9a-f]+)", what) if int(to, 16) < at]
    inner = [one for one in back
             if not any(one != two and one[0] <= two[0] and two[1] <= one[1] for two in back)]
    for first, last in inner:
        yield [what for at, what in lines if first <= at <= last]


def loops(text):
    '''How many, and how many multiply-adds among them.'''
    for body in bodies(text):
        yield len(body), sum(what.startswith("FFMA") for what in body)


OF_HEAD = lenet5.kernels.pick, lenet5.kernels.head, lenet5.kernels.dense_gradients
NET = *OF_HEAD, cuda_update.step
OF_LAYER = cuda.kernels.forward, cuda.gradient.backward
OTHERS = cuda.gradient.add_up, *NET, descent._run
KERNELS = [*itertools.product(OF_LAYER, LAYERS), *((kernel, "") for kernel in OTHERS)]
ONE_WARP = *OF_LAYER, cuda.gradient.add_up, descent._run
for architecture in map(int, sys.argv[1:]):
    for kernel, layer in KERNELS:
        constants = constants_of(kernel, layer)
        kinds = {name: kind(name, kernel, constants) for name in kernel.arg_names}
        options = {"num_warps": 1 if kernel in ONE_WARP else 4}
        # Addresses and sizes are multiples of 16, as in trainings.
        hints = {
            (place,): [["tt.divisibility", 16]]
            for place, name in enumerate(kernel.arg_names)
            if kernel is descent._run and name not in constants
        }
        compiled = compile(
            ASTSource(kernel, kinds, constants, hints), target=GPUTarget("cuda", architecture, 32),
            options=options,
        )
        text = sass(compiled)
        name = " ".join([kernel.__name__, *layer.split(), f"for {architecture}"])
        assert "tf32" not in compiled.asm["ptx"], name
        assert not re.search(r"\\b(atom|red)\\.", compiled.asm["ptx"]), name
        # For sm_100 the descent puts a number aside where it divides by a subnormal one, and the
        # sine has a table for angles of thousands.
        if kernel not in (descent._run, lenet5.kernels.pick):
            assert "LOCAL:0" in text and not re.search(r" (STL|LDL)", text), f"{name} spills"
        if kernel is descent._run:
            # One warp waits for no other, and has asked for the next image when it knows the sum,
            # but where the assembler moves that behind it.
            (iteration,) = bodies(text)
            assert not any(what.startswith("BAR") for what in iteration), name
            asked = [n for n, what in enumerate(iteration) if what.startswith("LDG")]
            known = next(n for n, what in enumerate(iteration) if what.startswith("MUFU.EX2"))
            assert max(asked) < known or architecture not in (90, 100), name
        registers = re.search(r"REG:(\\d+)", text)[1] + " registers"
        found = (f"{count} / {adds}" for count, adds in loops(text) if adds)
        print(name, registers, *found, sep=", ")
"""


INTERPRET = {} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"}


def printed_by(code, *words, **environment):
    paths = f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'tests'}"
    done = python("-c", code, *words, PYTHONPATH=paths, **environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="Triton runs on Linux"),
]


@pytest.mark.parametrize(
    "code", [INTERPRETED, HEAD, DESCENT], ids=["convolution", "head", "descent"]
)
def test_kernels_equal_the_reference(code):
    printed_by(code, **INTERPRET)


def test_tanh_keeps_its_digits_near_0_too():
    path = {"PYTHONPATH": str(REPOSITORY)}
    done = python(str(REPOSITORY / "tests/triton_tanh.py"), **path, **INTERPRET)
    assert done.returncode == 0, done.stderr[-3000:]
    whole, near_0 = map(float, done.stdout.split())
    assert whole < 3e-7
    assert near_0 < 2e-7


ARCHITECTURES = os.environ.get("ARCHITECTURES", "75 90").split()
"""All that the kernels are meant for take a minute: ARCHITECTURES="75 80 86 90 100 120"."""


def test_kernels_compile_for_a_gpu_that_is_not_there(tmp_path):
    printed = printed_by(
        COMPILED, *ARCHITECTURES, TRITON_INTERPRET="0", TRITON_CACHE_DIR=str(tmp_path)
    )
    kernels = [line.split(", ") for line in printed.splitlines()]
    assert len(kernels) == len(ARCHITECTURES) * 10
    for name, _, *loops in kernels:
        if name.startswith(("forward", "backward")):
            # A 6x6 window serves 2x2 pixels; backward in two loops, for dx and for the weights.
            counts = [int(loop.split(" / ")[0]) for loop in loops]
            assert len(counts) == (1 if name.startswith("forward") else 2), name
            assert all(100 <= count <= 3 * 100 for count in counts), (name, counts)
    print(printed)


@pytest.mark.parametrize(("learner", "ranks"), [("recorded", 2), ("recorded-kernels", 1)])
def test_whole_trainings_equal_those_of_the_cpu(learner, ranks, tmp_path):
    """Two iterations, since the interpreter takes seconds for one."""
    script = REPOSITORY / "tests/interpreted.py"
    paths = f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'tests'}"
    environment = {"PYTHONPATH": paths, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = python(str(script), learner, "sparse", str(ranks), str(tmp_path), "2", **environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "losses within" in done.stdout
