"""What people do with a model in Python: differentiate twice, transform, trace, export, copy."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from helpers import assert_same_weights, fit
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from data import MNISTDataModule
from models import nets
from models.kernels.conv_pool import operator, reference
from models.kernels.lanes import from_lanes, to_lanes
from models.kernels.table import connections, full_table
from models.lenet import LeNet5

pytestmark = pytest.mark.filterwarnings("ignore")


def of_images(net: nn.Module, x: Tensor) -> Tensor:
    """How fast the outputs change with the images."""
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(net(x).square().sum(), x, create_graph=True)
    return gradient.square().sum()


def of_weights(net: nn.Module, x: Tensor) -> Tensor:
    """How fast they change with the weights."""
    gradients = torch.autograd.grad(
        net(x).square().sum(), list(net.parameters()), create_graph=True
    )
    return sum((g.square().sum() for g in gradients), x.new_zeros(()))


def of_frozen(net: nn.Module, x: Tensor) -> Tensor:
    """The same where some are left out."""
    for parameter in (net.c1.weight, net.c3.bias):
        parameter.requires_grad_(False)
    wanted = [net.c1.bias, net.c3.weight]
    gradients = torch.autograd.grad(net(x).square().sum(), wanted, create_graph=True)
    return sum((g.square().sum() for g in gradients), x.new_zeros(()))


@pytest.mark.parametrize("penalty", [of_images, of_weights, of_frozen])
@pytest.mark.parametrize("batch", [1, 11])
def test_gradients_are_differentiable(penalty, batch):
    torch.manual_seed(0)
    net = nets.LeNet5()
    exact = nets.LeNet5(backend="reference").double()
    exact.load_state_dict(net.state_dict())
    x = torch.rand(batch, 1, 28, 28)
    found, expected = penalty(net, x), penalty(exact, x.double())
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=0)
    found.backward()
    expected.backward()
    for (name, a), b in zip(net.named_parameters(), exact.parameters(), strict=True):
        if b.grad is not None:
            torch.testing.assert_close(a.grad.double(), b.grad, rtol=1e-3, atol=1e-5, msg=name)


def test_an_input_that_depends_on_another_is_counted_once():
    """Two blocks share their weight, so that the second's input depends on it."""
    pairs = connections(full_table(1, 1), 1)
    x = torch.rand(3, 1, 30, 30)

    def second_derivative(function, dtype):
        torch.manual_seed(0)
        weight = (torch.randn(1, 5, 5) / 5).to(dtype).requires_grad_()
        rest = torch.zeros(1, dtype=dtype), pairs
        y = function(function(x.to(dtype), weight, *rest), weight, *rest).sum()
        (gradient,) = torch.autograd.grad(y, weight, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), weight)[0]

    found = second_derivative(operator.fused, torch.float32)
    expected = second_derivative(reference.conv_pool, torch.float64)
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-4)


def test_lanes_are_differentiable_too():
    weight, bias, pairs, padding = nets.LeNet5().c1.arguments()
    x = torch.rand(5, 1, 28, 28, requires_grad=True)

    def penalty(function):
        (gradient,) = torch.autograd.grad(function(x).sum(), x, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), weight)[0]

    def by_lanes(x):
        return from_lanes(operator.fused(to_lanes(x), weight, bias, pairs, padding), len(x))

    expected = penalty(lambda x: reference.conv_pool(x, weight, bias, pairs, padding))
    torch.testing.assert_close(penalty(by_lanes), expected, rtol=1e-3, atol=1e-4)


class Penalised(LeNet5):
    """Adds a gradient penalty to its loss."""

    def forward(self, x):
        self.x = x.requires_grad_(torch.is_grad_enabled())
        return super().forward(self.x)

    def losses(self, outputs, labels):
        each = super().losses(outputs, labels)
        if not torch.is_grad_enabled():
            return each
        (gradient,) = torch.autograd.grad(outputs.square().sum(), self.x, create_graph=True)
        return each + 0.1 * gradient.square().flatten(1).sum(1)


class OwnStep(LeNet5):
    """The same in a step of its own."""

    def training_step(self, block, batch_idx):
        optimizer, losses = self.optimizers(), []
        for index in block.order.split(block.sizes.tolist()):
            x, labels = self.batch(block, index)
            x.requires_grad_()
            outputs = self(x)
            (gradient,) = torch.autograd.grad(outputs.square().sum(), x, create_graph=True)
            penalty = 0.1 * gradient.square().flatten(1).sum(1)
            loss = (self.losses(outputs, labels) + penalty).mean()
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            losses.append(loss.detach())
        return {"losses": torch.stack(losses), "loss": losses[-1], "images": len(block.order)}


def test_a_penalty_trains_as_it_is_written(tiny_root, tmp_path):
    def trained(kind, backend):
        data = MNISTDataModule(str(tiny_root), batch_size=30)
        model, run = fit(lambda: kind(backend=backend), data, tmp_path, max_epochs=1)
        assert run.global_step == 5
        return model.state_dict()

    expected = trained(Penalised, "reference")
    for weights in (trained(Penalised, "auto"), trained(OwnStep, "auto")):
        for name, weight in weights.items():
            torch.testing.assert_close(weight, expected[name], rtol=1e-3, atol=1e-5, msg=name)


class Plain(LeNet5):
    """A step as one writes it for automatic optimization, which this is not."""

    def training_step(self, block, batch_idx):
        x, labels = self.batch(block, block.order)
        return self.losses(self(x), labels).mean()


def test_a_step_that_learns_nothing_is_refused(tiny_root, tmp_path):
    with pytest.raises(MisconfigurationException, match="training_step of Plain takes no step"):
        fit(Plain, MNISTDataModule(str(tiny_root), batch_size=30), tmp_path)


def test_automatic_optimization_is_one_step_for_each_block(tiny_root, tmp_path):
    """Of whoever asks for it, with mini-batches as blocks."""

    class Automatic(Plain):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = True

    data = MNISTDataModule(str(tiny_root), batch_size=30, block_size=1)
    model, run = fit(Automatic, data, tmp_path, max_epochs=1)
    expected, _ = fit(
        LeNet5, MNISTDataModule(str(tiny_root), batch_size=30), tmp_path, max_epochs=1
    )
    assert run.global_step == 5
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(weight, expected.state_dict()[name], rtol=1e-4, atol=1e-6)


def model_and_images() -> tuple[LeNet5, Tensor]:
    """With its fused blocks, and the answers of ordinary ones."""
    torch.manual_seed(0)
    return LeNet5().eval(), torch.rand(3, 1, 28, 28)


TRANSFORMS = {
    "vmap": lambda net, x: torch.func.vmap(lambda one: net(one[None])[0])(x),
    "jacrev": lambda net, x: torch.func.jacrev(lambda a: net(a).sum(0))(x),
    "jacfwd": lambda net, x: torch.func.jacfwd(lambda a: net(a * x).sum(0))(torch.ones(())),
    "hessian": lambda net, x: torch.func.hessian(lambda a: net(a * x).sum())(torch.ones(())),
    "functional hessian": lambda net, x: torch.autograd.functional.hessian(
        lambda a: net(a * x).sum(), torch.ones(())
    ),
    "per-sample gradients": lambda net, x: torch.func.vmap(
        torch.func.grad(
            lambda weights, one: torch.func.functional_call(net, weights, one[None]).sum()
        ),
        in_dims=(None, 0),
    )({name: p.detach() for name, p in net.named_parameters()}, x)["c3.weight"],
    "checkpoint": lambda net, x: checkpoint(net, x.requires_grad_(), use_reentrant=False),
    "trace": lambda net, x: torch.jit.trace(net, x)(x),
    "copy": lambda net, x: copy.deepcopy(net)(x),
    "pickle": lambda net, x: pickle.loads(pickle.dumps(net))(x),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_what_transforms_a_network_gets_what_ordinary_operators_give(name):
    model, x = model_and_images()
    plain = nets.LeNet5(backend="composite").eval()
    plain.load_state_dict(model.net.state_dict())
    found, expected = (TRANSFORMS[name](net, x.clone()) for net in (model.net, plain))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_forward_mode_goes_through():
    model, x = model_and_images()
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
        tangent = torch.autograd.forward_ad.unpack_dual(model(dual)).tangent
    _, expected = torch.func.jvp(model, (x,), (torch.ones_like(x),))
    torch.testing.assert_close(tangent, expected, rtol=1e-4, atol=1e-5)


def test_a_copy_is_a_model_of_its_own(tiny_root, tmp_path):
    data = MNISTDataModule(str(tiny_root), batch_size=30)
    model, _ = fit(LeNet5, data, tmp_path, max_epochs=1)
    other = copy.deepcopy(model)
    assert_same_weights(model.state_dict(), other.state_dict())
    with torch.no_grad():
        other.net.c1.weight.zero_()
    assert model.net.c1.weight.any()
    _, run = fit(lambda: other, MNISTDataModule(str(tiny_root), batch_size=30), tmp_path)
    assert run.global_step == 10


@pytest.mark.slow
def test_lightnings_export_to_onnx_answers_alike(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    model, x = model_and_images()
    model.to_onnx(tmp_path / "model.onnx", x, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), model(x), rtol=1e-4, atol=1e-5)
