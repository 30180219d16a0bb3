"""Whatever compiled code is given: one clear error before it reads, or what the reference gives."""

from __future__ import annotations

import contextlib
import re
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import compiled_gradient, threads_of_torch, trainer
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses import FakeTensorMode

from data import FourNineDataModule, MNISTDataModule
from models import nets
from models.distortion import distort
from models.kernels import doors
from models.kernels.conv_pool import cpu, operator, reference
from models.kernels.distortion import Distortion
from models.kernels.lanes import LANES, from_lanes, to_lanes
from models.kernels.lenet5.cpu import LeNet5Gradient, MiniBatches
from models.kernels.lenet5.design import LENET5
from models.kernels.sgd import reference as sgd_reference
from models.kernels.sgd import sequential_sgd
from models.kernels.table import connections
from models.kernels.update import Update
from models.lenet import LeNet5
from models.lenet1998 import LeNet1998
from models.linear import Linear
from models.losses import LOSSES

TYPES = (torch.bool, torch.uint8, torch.int32, torch.int64, torch.float16, torch.float64)

some = settings(deadline=None, max_examples=30)

# What may happen to a tensor, at one of its axes, by one number.
CHANGES = {
    "another type": lambda tensor, axis, number: tensor.to(TYPES[number % len(TYPES)]),
    "shorter": lambda tensor, axis, _: tensor.narrow(axis, 0, max(0, tensor.shape[axis] - 1)),
    "longer": lambda tensor, axis, _: torch.cat([tensor, tensor.narrow(axis, 0, 1)], axis),
    "empty": lambda tensor, axis, _: tensor.narrow(axis, 0, 0),
    "flat": lambda tensor, *_: tensor.flatten(),
    "an axis more": lambda tensor, axis, _: tensor.unsqueeze(axis),
    "an axis less": lambda tensor, axis, _: tensor.select(axis, 0),
    "turned": lambda tensor, axis, _: tensor.transpose(0, axis),
    "gaps": lambda tensor, *_: torch.stack([tensor, tensor], -1)[..., 0],
    "expanded": lambda tensor, axis, _: tensor.narrow(axis, 0, 1).expand_as(tensor),
    "elsewhere": lambda tensor, *_: tensor.to("meta"),
    "another number": lambda tensor, _, number: with_another(tensor, number),
}


def with_another(tensor, number):
    changed = tensor.clone(memory_format=torch.contiguous_format)
    if tensor.dtype != torch.int64:
        number = number % 8 / (8 if tensor.is_floating_point() else 1)
    changed.view(-1)[int(number) % tensor.numel()] = number
    return changed


class Change(NamedTuple):
    name: str
    kind: str
    axis: int
    number: int

    def of(self, value):
        """The value changed, where that makes sense."""
        if isinstance(value, int):
            return self.number % 8 - 2
        if isinstance(value, np.ndarray):
            changed = self.of(torch.from_numpy(value))
            return changed.numpy() if changed.device.type == "cpu" else changed
        if not value.numel() or not value.dim():
            return value
        return CHANGES[self.kind](value, self.axis % value.dim(), self.number)


def changes_of(arguments, kinds=tuple(CHANGES)):
    """One or two changes of some arguments."""
    numbers = st.integers(-3, 20) | st.integers(-(2**62), 2**62)
    change = st.builds(
        Change, st.sampled_from([*arguments]), st.sampled_from(kinds), st.integers(0, 4), numbers
    )
    return st.lists(change, min_size=1, max_size=2)


def always(name, kind, number=0):
    """A change that is tried in every run."""
    return example(changes=[Change(name, kind, 0, number)])


def changed(arguments, changes):
    arguments = {
        name: value.clone() if isinstance(value, Tensor) else value
        for name, value in arguments.items()
    }
    for change in changes:
        arguments[change.name] = change.of(arguments[change.name])
    return arguments


def is_refused(entry, expected, arguments):
    """Whether the entry refuses; if it does not, it must give what the reference gives."""
    try:
        actual = entry(**arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        if not is_clear(error):
            raise
        return True
    with threads_of_torch(1):  # at these sizes, several wait for each other
        right = expected(**arguments)
    for a, e in zip(actual, right, strict=True):
        assert a.shape == e.shape
        assert (a - e).norm() <= 1e-4 * e.norm() + 1e-6
    return False


def is_clear(error):
    known = "too small to pool|meta" if isinstance(error, RuntimeError) else "^expected |meta"
    return re.search(known, str(error)) is not None


def randn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


PAIRS = connections([[0, 2], [1], [2, 1, 0], [1, 2]], 3)
BLOCK = {"weight": randn(8, 5, 5) / 8, "bias": randn(4), "connections": PAIRS, "padding": 1}
# Not as many columns as lanes: five axes with so many at the end would be groups.
IMAGES = {"x": randn(9, 3, 9, 10), **BLOCK}
GROUPS = {**IMAGES, "x": to_lanes(IMAGES["x"])}


def block(x, weight, bias, connections, padding):
    tensors = x.double(), weight.double(), bias.double()
    return reference.conv_pool(*tensors, connections, padding)


def block_of_groups(x, **arguments):
    return (to_lanes(block(from_lanes(x, len(x) * LANES), **arguments)),)


@some
@given(changes=changes_of(GROUPS))
@always("connections", "another number", 3)
@always("connections", "another number", -1)
def test_block(changes):
    arguments = changed(GROUPS, changes)
    is_refused(lambda **given: cpu.forward(**given)[:1], block_of_groups, arguments)


@some
@given(changes=changes_of(IMAGES))
def test_block_of_images(changes):
    arguments = changed(IMAGES, changes)
    is_refused(
        lambda **given: (operator.fused(**given),), lambda **given: (block(**given),), arguments
    )


GRADIENT = {
    "grad": to_lanes(randn(9, 4, 3, 4)),
    "x": GROUPS["x"],
    "weight": BLOCK["weight"],
    "connections": PAIRS,
    "padding": 1,
    "slope": to_lanes(randn(9, 4, 6, 8)),
}


def gradient_of_block(grad, x, weight, connections, padding, slope):
    """By any slope, not only that of the forward pass."""
    x, grad, slope = (from_lanes(part, len(x) * LANES).double() for part in (x, grad, slope))
    at_sums = grad.repeat_interleave(2, 2).repeat_interleave(2, 3) * slope
    parts = (x, weight.double(), torch.zeros(slope.shape[1], dtype=torch.float64))
    parts = [part.detach().requires_grad_() for part in parts]
    sums = reference.partial_conv2d(*parts, connections, padding)
    pooled = sums[..., : slope.shape[2], : slope.shape[3]]
    dx, dw, db = torch.autograd.grad(pooled, parts, at_sums)
    return to_lanes(dx), dw, db


@some
@given(changes=changes_of(GRADIENT), want_input=st.booleans())
def test_gradient_of_block(changes, want_input):
    arguments = changed(GRADIENT, changes)
    skipped = 0 if want_input else 1
    is_refused(
        lambda **given: cpu.backward(**given, want_input=want_input)[skipped:],
        lambda **given: gradient_of_block(**given)[skipped:],
        arguments,
    )


@some
@given(changes=changes_of(GROUPS, tuple(CHANGES.keys() - {"elsewhere"})))
def test_registered_operator_refuses_fake_tensors_of_the_same_shapes(changes):
    arguments, run = changed(GROUPS, changes), torch.ops.lenet5.conv_pool
    refused = is_refused(lambda **given: run(**given)[:1], block_of_groups, arguments)
    mode = FakeTensorMode()
    fakes = {
        name: mode.from_tensor(part.clone()) if isinstance(part, Tensor) else part
        for name, part in arguments.items()
    }
    with mode:
        refused_as_fake = is_refused(lambda **fakes: run(**fakes)[:0], lambda **_: (), fakes)
    assert refused or not refused_as_fake
    assert refused_as_fake or not refused or not is_table(**arguments)


def is_table(x, bias, connections, **_):
    """Whether the connections, the numbers of which no fake tensor has, are a table."""
    try:
        doors.check_connections(connections, len(bias), x.shape[1])
    except ValueError:
        return False
    return True


TWO = {
    "x": IMAGES["x"],
    **{f"first_{name}": value for name, value in BLOCK.items()},
    "second_weight": randn(6, 5, 5) / 8,
    "second_bias": randn(2),
    "second_connections": connections([[0, 1, 2], [3, 2, 1]], 4),
    "second_padding": 2,
}


def pair_of(x, **parts):
    """The images and the arguments of both blocks."""
    names = "weight", "bias", "connections", "padding"
    return x, *([parts[f"{one}_{name}"] for name in names] for one in ("first", "second"))


def two_blocks(x, first, second):
    return block(block(x, *first), *second)


@some
@given(changes=changes_of(TWO), keep=st.booleans())
def test_two_blocks(changes, keep):
    def run(**arguments):
        x, first, second = pair_of(**arguments)
        return cpu.forward_two(x, cpu.Convolution(*first), cpu.Convolution(*second), keep)[:1]

    is_refused(run, lambda **given: (two_blocks(*pair_of(**given)),), changed(TWO, changes))


TWO_AND_GRADIENT = {"grad": randn(9, 2, 1, 2), **TWO}


def there_and_back(grad, **arguments):
    x, first, second = pair_of(**arguments)
    blocks = cpu.Convolution(*first), cpu.Convolution(*second)
    _, state = cpu.forward_two(x, *blocks)
    return cpu.backward_two(grad, x, *blocks, state)


def gradient_of_two(grad, **arguments):
    x, first, second = pair_of(**arguments)
    parts = [part.double().requires_grad_() for part in (*first[:2], *second[:2])]
    y = two_blocks(x, (*parts[:2], *first[2:]), (*parts[2:], *second[2:]))
    return torch.autograd.grad(y, parts, grad.double())


@some
@given(changes=changes_of(TWO_AND_GRADIENT))
def test_gradient_of_two_blocks(changes):
    is_refused(there_and_back, gradient_of_two, changed(TWO_AND_GRADIENT, changes))


@pytest.mark.parametrize(
    "change",
    [lambda s: s[:-1], lambda s: s[:0], lambda s: s.double(), lambda s: s[None], lambda s: s[::2]],
)
def test_state_of_another_forward_pass_is_refused(change):
    x, *parts = pair_of(**TWO)
    blocks = [cpu.Convolution(*part) for part in parts]
    y, state = cpu.forward_two(x, *blocks)
    with pytest.raises((TypeError, ValueError), match="expected state of"):
        cpu.backward_two(y, x, *blocks, change(state))


# The real shapes, with weights that the tests can afford to write into.
NET = nets.LeNet5("original")
WEIGHTS = {name.replace(".", "_"): value.detach() for name, value in NET.named_parameters()}
TABLES = {"c1_connections": NET.c1.connections, "c3_connections": NET.c3.connections}
BATCH = {"x": randn(9, 1, 28, 28), "labels": torch.arange(9), **TABLES, **WEIGHTS}


def lenet5_gradient(weights, c1_connections, c3_connections, **settings):
    first = cpu.Convolution(weights[0], weights[1], c1_connections, 2)
    second = cpu.Convolution(weights[2], weights[3], c3_connections, 0)
    compute = LeNet5Gradient(first, second, weights, **settings)
    compute._row.fill_(77)  # whatever is not written is seen
    return compute


def losses_and_gradients(x, labels, c1_connections, c3_connections, **weights):
    weights = [*weights.values()]
    losses = lenet5_gradient(weights, c1_connections, c3_connections)(x, labels, 0.1)
    return losses, *(weight.grad for weight in weights)


def cross_entropies(x, labels, c1_connections, c3_connections, weights):
    c1, c1_bias, c3, c3_bias, c5, c5_bias, f6, f6_bias, output, output_bias = weights
    s2 = block(x, c1, c1_bias, c1_connections, 2)
    s4 = block(s2, c3, c3_bias, c3_connections, 0).flatten(1)
    y = F.linear(F.linear(s4, c5, c5_bias).tanh(), f6, f6_bias).tanh()
    return F.cross_entropy(F.linear(y, output, output_bias), labels, reduction="none")


def losses_and_gradients_by_autograd(x, labels, c1_connections, c3_connections, **weights):
    weights = [weight.double().requires_grad_() for weight in weights.values()]
    losses = cross_entropies(x, labels, c1_connections, c3_connections, weights)
    return losses.detach(), *torch.autograd.grad(0.1 * losses.sum(), weights)


@some
@given(changes=changes_of(BATCH))
@always("labels", "another number", 10)
@always("c1_connections", "another number", 1)
def test_gradient_of_lenet5(changes):
    arguments = changed(BATCH, changes)
    is_refused(losses_and_gradients, losses_and_gradients_by_autograd, arguments)


@pytest.mark.parametrize("number", range(10))
@pytest.mark.parametrize("kind", ["another type", "shorter", "an axis more", "elsewhere", "gaps"])
def test_velocities_that_do_not_fit_the_weights_are_refused(kind, number):
    velocities = [torch.empty_like(weight) for weight in WEIGHTS.values()]
    velocities[number] = CHANGES[kind](velocities[number], 0, 0)
    with pytest.raises((TypeError, ValueError), match="expected"):
        lenet5_gradient([*WEIGHTS.values()], **TABLES, velocities=velocities)


def test_momentum_without_velocities_is_refused():
    with pytest.raises(ValueError, match="momentum needs velocities"):
        lenet5_gradient([*WEIGHTS.values()], **TABLES, update=Update(momentum=0.9))


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_dense_layers_narrower_than_a_tile_are_refused(layer):
    weights = [*WEIGHTS.values()]
    for part in (4 + 2 * layer, 5 + 2 * layer):
        weights[part] = weights[part][:9].clone()
    if layer < 2:
        weights[6 + 2 * layer] = weights[6 + 2 * layer][:, :9].clone()
    with pytest.raises(ValueError, match="expected dense layers of 10 numbers or more, got 9"):
        lenet5_gradient(weights, **TABLES)


@pytest.mark.parametrize("layer", [0, 1])
def test_dense_layers_that_read_less_than_the_widest_vector_are_refused(layer):
    weights = [*WEIGHTS.values()]
    for part in (4 + 2 * layer, 5 + 2 * layer):
        weights[part] = weights[part][:15].clone()
    weights[6 + 2 * layer] = weights[6 + 2 * layer][:, :15].clone()
    with pytest.raises(ValueError, match="expected dense layers that read 16 or more, got 15"):
        lenet5_gradient(weights, **TABLES)


GENERATOR = torch.Generator().manual_seed(0)
DIGITS = torch.randint(0, 256, (12, 28, 28), dtype=torch.uint8, generator=GENERATOR)
DISTORTION = Distortion(rotation=30, scale=0.3, shear=0.2, shift=3, elastic=1)

STEPS = {
    "images": DIGITS,
    "labels": torch.arange(12) % 10,
    "order": torch.tensor([3, 1, 4, 1, 5, 9, 2, 6, 11]),
    "sizes": np.array([3, 3, 3]),
    "shares": torch.full((3,), 1 / 3),
    "numbers": 2 * torch.rand(9, DISTORTION.numbers, generator=GENERATOR) - 1,
    "rates": torch.linspace(0.1, 0.05, 3, dtype=torch.float64),
}


UPDATE = Update(momentum=0.9, nesterov=True, weight_decay=0.01)


def descended(sizes, shares, rates, **batches):
    weights = [weight.clone() for weight in WEIGHTS.values()]
    velocities = [torch.zeros_like(weight) for weight in weights]
    settings = {"update": UPDATE, "velocities": velocities, "distortion": DISTORTION}
    settings["design"] = LENET5._replace(paper=-1, ink=1.5)
    compute = lenet5_gradient(weights, **TABLES, **settings)
    return compute.descend(MiniBatches(**batches), sizes, shares, rates), *weights


def descended_by_autograd(images, labels, order, sizes, shares, numbers, rates):
    weights = [weight.double().requires_grad_() for weight in WEIGHTS.values()]
    optimizer = torch.optim.SGD(weights, **UPDATE._asdict())
    losses, split = [], sizes.tolist()
    steps = zip(order.split(split), numbers.double().split(split), shares, rates, strict=True)
    for index, drawn, share, rate in steps:
        x = distort(images[index].double(), DISTORTION, drawn).unsqueeze(1) / 102 - 1
        loss = share * cross_entropies(x, labels[index], *TABLES.values(), weights).sum()
        losses.append(loss.detach())
        optimizer.param_groups[0]["lr"] = float(rate)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return torch.stack(losses) if losses else shares, *weights


@some
@given(changes=changes_of(STEPS))
@always("labels", "another number", 10)
@always("labels", "another number", -1)
@always("order", "another number", 12)
@always("sizes", "another number", 4)
@always("images", "gaps")
def test_descent_of_lenet5(changes):
    is_refused(descended, descended_by_autograd, changed(STEPS, changes))


ONE_BY_ONE = {
    "images": DIGITS.flatten(1)[:, 300:330],
    "labels": 2 * (torch.arange(12) % 2) - 1,
    "order": torch.tensor([[0, 3, 11, 3], [5, 6, 7, 8]]),
    "weight": randn(2, 30).double() / 30,
    "bias": randn(2).double(),
    "lr": torch.linspace(0.1, 0.05, 4),
    "scale": torch.full((30,), 1 / 255),
}


def one_by_one(backend):
    def run(weight, bias, **rest):
        before = weight.clone(), bias.clone()
        losses = sequential_sgd(
            weight=weight, bias=bias, loss=LOSSES["mse"], backend=backend, **rest
        )
        after = weight.clone(), bias.clone()
        weight.copy_(before[0])
        bias.copy_(before[1])
        return losses, *after

    return run


@some
@given(changes=changes_of(ONE_BY_ONE))
@always("labels", "another number", 0)
@always("order", "another number", 12)
@always("weight", "expanded")
@always("weight", "gaps")
def test_descent_by_single_images(changes):
    is_refused(one_by_one("auto"), one_by_one("reference"), changed(ONE_BY_ONE, changes))


class LaunchedError(Exception):
    """A kernel was about to run."""


class Launcher:
    def __getitem__(self, grid):
        raise LaunchedError


def launched(kernels, function, arguments):
    """Calls what launches one of the kernels, up to there; returns nothing."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name in kernels:
            patch.setattr(module, name, Launcher())
        with contextlib.suppress(LaunchedError):
            function(**arguments)
    return ()


def nothing_of(function):
    """What must not fail where a kernel would have run."""

    def run(**arguments):
        function(**arguments)
        return ()

    return run


@some
@given(changes=changes_of(IMAGES))
def test_block_on_cuda(changes):
    cuda = pytest.importorskip("models.kernels.conv_pool.cuda")

    def run(**arguments):
        return launched([(cuda.kernels, "forward")], cuda.forward, arguments)

    is_refused(run, nothing_of(block), changed(IMAGES, changes))


GRADIENT_OF_IMAGES = {
    **GRADIENT,
    "grad": randn(9, 4, 3, 4),
    "x": IMAGES["x"],
    "slope": randn(9, 4, 6, 8),
}


@some
@given(changes=changes_of(GRADIENT_OF_IMAGES))
def test_gradient_of_block_on_cuda(changes):
    cuda = pytest.importorskip("models.kernels.conv_pool.cuda")

    def run(**arguments):
        arguments["want_input"] = True
        return launched(
            [(cuda.gradient, "backward"), (cuda.gradient, "add_up")], cuda.backward, arguments
        )

    def by_reference(grad, x, slope, **rest):
        grad, x, slope = (to_lanes(part) for part in (grad, x, slope))
        gradient_of_block(grad, x, slope=slope, **rest)

    is_refused(run, nothing_of(by_reference), changed(GRADIENT_OF_IMAGES, changes))


def test_more_pixels_than_a_cuda_kernel_counts_are_refused():
    cuda = pytest.importorskip("models.kernels.conv_pool.cuda")
    x = torch.zeros(1, 1, 1, 1).expand(3_000_000, 1, 28, 28)
    with pytest.raises(ValueError, match="expected fewer than 2,147,483,616 pixels at once"):
        cuda.forward(x, torch.zeros(1, 5, 5), torch.zeros(1), torch.zeros(1, 2).long(), 0)


@some
@given(changes=changes_of(ONE_BY_ONE))
def test_descent_by_single_images_on_cuda(changes):
    cuda = pytest.importorskip("models.kernels.sgd.cuda")
    same = {name: part.double() for name, part in ONE_BY_ONE.items() if name in ("lr", "scale")}
    arguments = changed(ONE_BY_ONE | same | {"loss": 0}, changes) | {"loss": LOSSES["mse"]}

    def run(**arguments):
        return launched([(cuda, "_run")], cuda.sequential_sgd, arguments)

    is_refused(run, nothing_of(sgd_reference.sequential_sgd), arguments)


def test_connections_that_were_written_to_are_looked_at_again():
    net, x = nets.LeNet5(), randn(2, 1, 28, 28)
    net(x)
    net.c3.connections[3, 1] = 6
    for enabled in (True, False):
        with torch.set_grad_enabled(enabled), pytest.raises(ValueError, match="from 0 to 5, got 6"):
            net(x)
    with pytest.raises(ValueError, match="from 0 to 5, got 6"):
        compiled_gradient(net)


def test_connections_on_cuda_that_were_written_to_are_looked_at_again():
    cuda = pytest.importorskip("models.kernels.conv_pool.cuda")
    pairs = PAIRS.clone()
    assert cuda._tables(pairs, 4, 3) is cuda._tables(pairs, 4, 3)
    pairs[0, 1] = 3
    with pytest.raises(ValueError, match="from 0 to 2, got 3"):
        cuda._tables(pairs, 4, 3)
    with torch.inference_mode():
        uncounted = PAIRS.clone()
        assert len(cuda._tables(uncounted, 4, 3)) == 5
        uncounted[0, 0] = -1
        with pytest.raises(ValueError, match="from 0 to 3, got -1"):
            cuda._tables(uncounted, 4, 3)


def test_tables_of_connections_on_cuda_stay_as_long_as_these_do():
    """A recorded launch goes on reading them, however many others there are."""
    cuda = pytest.importorskip("models.kernels.conv_pool.cuda")
    pairs, before = PAIRS.clone(), len(cuda._kept)
    tables = cuda._tables(pairs, 4, 3)
    others = [PAIRS.clone() for _ in range(100)]
    for other in others:
        cuda._tables(other, 4, 3)
    assert cuda._tables(pairs, 4, 3) is tables
    del other, others
    assert len(cuda._kept) == before + 1


def test_labels_that_were_written_to_are_looked_at_again():
    labels, images = torch.arange(10), torch.empty(10, 28, 28)
    doors.check_labels_once(labels, range(10), images)
    labels += 1
    with pytest.raises(ValueError, match="expected labels from 0 to 9, got 10"):
        doors.check_labels_once(labels, range(10), images)
    with torch.inference_mode(), pytest.raises(ValueError, match="got 11"):
        doors.check_labels_once(torch.tensor([11]), range(10), images[:1])


@pytest.mark.parametrize("name", [name for name, _ in NET.named_parameters()])
def test_weights_that_do_not_fit_are_refused(name):
    net = nets.LeNet5()
    layer, part = name.split(".")
    weight = getattr(getattr(net, layer), part).detach()
    setattr(
        getattr(net, layer), part, torch.nn.Parameter(weight.repeat(2, *[1] * (weight.dim() - 1)))
    )
    with pytest.raises(ValueError, match="expected"):
        compiled_gradient(net)
    with torch.no_grad(), pytest.raises((ValueError, RuntimeError), match=r"expected|shape|size"):
        net(randn(2, 1, 28, 28))


WRONG = {
    "32x32": (
        lambda images, labels: (F.pad(images, (2, 2, 2, 2)), labels),
        r"expected (images|pixel deviations) of shape .*, got .*32, 32\)",
    ),
    "floating": (
        lambda images, labels: (images / 255, labels),
        "expected images of uint8, got float32",
    ),
    "labels + 1": (lambda images, labels: (images, labels + 1), "expected labels .*, got (10|2|0)"),
    "labels - 2": (lambda images, labels: (images, labels - 2), "expected labels .*, got (-2|-3)"),
    "too few": (lambda images, labels: (images, labels[1:]), "expected labels of shape"),
    "bytes": (
        lambda images, labels: (images, labels.byte()),
        "expected labels of int64, got uint8",
    ),
}


def wrong_data(base, kind, root, **options):
    class Own(base):
        def load(self, *, train):
            return WRONG[kind][0](*super().load(train=train))

    return Own(root=str(root), **options)


MODELS = {
    "auto": (LeNet5, MNISTDataModule, {}),
    "composite": (lambda: LeNet5(backend="composite"), MNISTDataModule, {}),
    "1998": (LeNet1998, MNISTDataModule, {}),
    "linear": (Linear, FourNineDataModule, {"iterations": 5}),
    "linear, reference": (
        lambda: Linear(backend="reference"),
        FourNineDataModule,
        {"iterations": 5},
    ),
    "linear, batches": (Linear, FourNineDataModule, {"iterations": 5, "batch_size": 4}),
    "linear, per pixel": (lambda: Linear(scale="per-pixel"), FourNineDataModule, {"iterations": 5}),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", WRONG)
def test_training_on_other_images_or_labels_is_refused(kind, name, tiny_root, tmp_path):
    model, base, options = MODELS[name]
    with pytest.raises((TypeError, ValueError), match=WRONG[kind][1]):
        trainer(tmp_path).fit(model(), wrong_data(base, kind, tiny_root, **options))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("stage", ["test", "validate", "predict"])
@pytest.mark.parametrize("kind", ["32x32", "labels + 1"])
@pytest.mark.parametrize("name", ["auto", "composite", "linear"])
def test_evaluation_of_other_images_or_labels_is_refused(name, kind, stage, tiny_root, tmp_path):
    model, base, options = MODELS[name]
    data = wrong_data(base, kind, tiny_root, val_size=20, **options)
    run = trainer(tmp_path)
    if stage == "predict":
        data.setup("test")
        if kind == "labels + 1":  # nobody knows those
            assert run.predict(model(), data.test_dataloader())
            return
        target = {"dataloaders": data.test_dataloader()}
    else:
        target = {"datamodule": data}
    with pytest.raises(ValueError, match=WRONG[kind][1]):
        getattr(run, stage)(model(), **target)
