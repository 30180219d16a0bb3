"""Who learns, and that whoever learns does the same: what is written."""

from __future__ import annotations

import math
from functools import partial
from itertools import product

import lightning
import pytest
import torch
from helpers import TUNED, Curve, fit
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback
from torch import nn
from torch.nn.utils import parametrizations, prune

from data import FourNineDataModule, MNISTDataModule
from models import nets
from models.classifier import Classifier
from models.learners import Run, choose
from models.learners.compiled import Compiled
from models.learners.eager import Eager
from models.learners.fused import Fused
from models.learners.recorded import Recorded
from models.learners.sequential import Sequential
from models.lenet import LeNet5
from models.lenet1998 import LeNet1998
from models.linear import Linear

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.usefixtures("torch_that_records"),
]


def digits(root, **options):
    return MNISTDataModule(str(root), **{"batch_size": 50, "block_size": 2, **options})


def two_digits(root, **options):
    return FourNineDataModule(root=str(root), **{"iterations": 60, "block_size": 7, **options})


class Heard(Callback):
    def on_after_backward(self, *_):
        pass


def reference(model, data, rate=None, optimizer=None, **settings):
    """The iterations of an epoch, written out; `rate` is a function of how many lie behind."""
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=1, **settings)
    losses = []
    for block in data.train_dataloader():
        for index in block.order.split(block.sizes.tolist()):
            if rate is not None:
                optimizer.param_groups[0]["lr"] = rate(len(losses))
            loss = model.losses(
                model(model.inputs(block.images[index])), block.labels[index]
            ).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
    return torch.stack(losses)


PLAIN = {"rate": lambda k: 0.1}
SLOW = {"rate": lambda k: 1e-4}
FALLING = {"rate": lambda k: 1e-4 * (1 - k / 70)}
OLD = {"rate": lambda k: 0.001, "momentum": 0.9}
# Three iterations, of which the first epoch, all of them, warm up.
COSINE = {"rate": lambda k: 0.05 * (k + 1) / 3 * (1 + math.cos(math.pi * k / 3)) / 2}
# Two fifths of three iterations rise.
ONE_CYCLE = {"rate": lambda k: 0.05 * min((k + 1) / 1.2, 1, (3 - k) / 1.8)}
STEEP = {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}
TRAININGS = {
    "original": (LeNet5, digits, PLAIN, "compiled"),
    "modern": (partial(LeNet5, "modern"), digits, PLAIN, "compiled"),
    "composite": (partial(LeNet5, backend="composite"), digits, PLAIN, "eager"),
    "1998": (LeNet1998, digits, OLD, "compiled"),
    "tuned": (
        partial(LeNet5, lr=0.05, schedule="cosine", **STEEP),
        digits,
        COSINE | STEEP,
        "compiled",
    ),
    "fast": (
        partial(LeNet5, lr=0.05, schedule="one-cycle", standardize=True, **STEEP),
        digits,
        ONE_CYCLE | STEEP,
        "compiled",
    ),
    "standardized": (partial(LeNet5, standardize=True), digits, PLAIN, "compiled"),
    "linear": (partial(Linear, decay_iterations=70), two_digits, FALLING, "sequential"),
    "batches": (Linear, partial(two_digits, batch_size=4), SLOW, "eager"),
}


@pytest.mark.parametrize(
    ("name", "heard"),
    [*product(TRAININGS, [False]), ("original", True), ("tuned", True), ("linear", True)],
)
def test_every_learner_takes_the_iterations_written_out(name, heard, tiny_root, tmp_path):
    make, data, settings, learner = TRAININGS[name]
    curve = Curve()
    callbacks = [curve, Heard()] if heard else [curve]
    trained, run = fit(make, data(tiny_root), tmp_path, max_epochs=1, callbacks=callbacks)
    assert trained.learner == ("eager" if heard else learner)
    lightning.seed_everything(0, verbose=False)
    model = make()
    expected = reference(model, run.datamodule, **settings)
    assert len(expected) == run.global_step
    torch.testing.assert_close(torch.cat(curve.losses), expected, rtol=1e-3, atol=1e-5)
    for key, weight in model.state_dict().items():
        torch.testing.assert_close(trained.state_dict()[key], weight, rtol=1e-3, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("heard", [False, True])
@pytest.mark.parametrize("name", ["original", "1998", "linear", "batches"])
def test_weights_do_not_depend_on_the_block_size(name, heard, tiny_root, tmp_path):
    make, data, _, _ = TRAININGS[name]
    callbacks = [Heard()] if heard else []
    found = [
        fit(make, data(tiny_root, block_size=size), tmp_path, callbacks=callbacks)[0].state_dict()
        for size in (1, 1000)
    ]
    for key, weight in found[0].items():
        assert torch.equal(weight, found[1][key]), key


def changed(change):
    """A LeNet5 to whose network something is done."""

    def make():
        model = LeNet5()
        change(model)
        return model

    return make


def subclass(base=LeNet5, **own):
    """A class derived from one of ours, with attributes of its own."""
    return type("Own", (base,), own)


def noisy(self, images):
    return LeNet5.inputs(self, images) + 0.1


def replaced(name, layer):
    return changed(lambda model: setattr(model.net, name, layer(getattr(model.net, name))))


def nothing(*_):
    return None


def patch_forward(model):
    forward = model.net.forward
    model.net.forward = lambda x: forward(0 * x)


def derive_net(model):
    class Net(nets.LeNet5):
        def forward(self, x):
            return super().forward(0 * x)

    model.net.__class__ = Net


def counting(name):
    """A subclass whose method counts its calls."""

    def method(self, *args, **kwargs):
        self.calls += 1
        return getattr(LeNet5, name)(self, *args, **kwargs)

    return subclass(calls=0, **{name: method})


# What is changed, and the sentence about it.
HABITS = {
    "forward": (subclass(forward=lambda self, x: self.net(0 * x)), "Own has its own forward"),
    "forward of this model": (
        changed(lambda model: setattr(model, "forward", lambda x: model.net(0 * x))),
        "LeNet5 has its own forward",
    ),
    "forward of this net": (changed(patch_forward), "net has its own forward"),
    "forward of the net's class": (changed(derive_net), "net is Net"),
    "losses": (
        subclass(losses=lambda self, *args: 0 * LeNet5.losses(self, *args)),
        "Own has its own losses",
    ),
    "losses of this model": (
        changed(lambda model: setattr(model, "losses", lambda z, _: z.square().sum(1))),
        "LeNet5 has its own losses",
    ),
    "net": (
        changed(lambda m: setattr(m, "net", nn.Sequential(nn.Flatten(), nn.Linear(784, 10)))),
        "net is Sequential",
    ),
    # All of them, so that no chance is involved.
    "dropout": (
        replaced("f6", lambda f6: nn.Sequential(f6, nn.Dropout(1.0))),
        "net.f6 is Sequential",
    ),
    "activation": (replaced("f6", lambda f6: nn.Sequential(f6, nn.ReLU())), "net.f6 is Sequential"),
    "weight norm": (
        changed(lambda m: parametrizations.weight_norm(m.net.f6)),
        "net.f6 is ParametrizedLinear",
    ),
    "pruned": (
        changed(lambda m: prune.random_unstructured(m.net.f6, "weight", 0.5)),
        "the parameters of net are",
    ),
    "no bias": (
        replaced("output", lambda _: nn.Linear(84, 10, bias=False)),
        "the parameters of net are",
    ),
    "nine classes": (replaced("output", lambda _: nn.Linear(84, 9)), "expected dense layers of 10"),
    "one more": (
        changed(lambda m: setattr(m.net, "temperature", nn.Linear(1, 1))),
        "net.temperature is Linear",
    ),
    "frozen": (changed(lambda m: m.net.c1.requires_grad_(False)), "net.c1.weight is frozen"),
    "hook": (changed(lambda m: m.net.f6.register_forward_hook(nothing)), "net.f6 has a hook"),
    "hook of the model": (
        changed(lambda m: m.register_forward_pre_hook(nothing)),
        "the model has a hook",
    ),
    "backward hook": (
        changed(lambda m: m.net.f6.register_full_backward_hook(nothing)),
        "net.f6 has a hook",
    ),
    "hook of a gradient": (
        changed(lambda m: m.net.f6.weight.register_hook(lambda grad: 0 * grad)),
        "net.f6.weight has a hook",
    ),
    "hook behind a gradient": (
        changed(lambda m: m.net.f6.weight.register_post_accumulate_grad_hook(nothing)),
        "net.f6.weight has a hook",
    ),
    "turned": (
        changed(lambda m: setattr(m.net.f6.weight, "data", m.net.f6.weight.data.T.contiguous().T)),
        "net.f6.weight is not contiguous",
    ),
    "backward": (counting("backward"), "Own has its own backward"),
    "on_before_zero_grad": (counting("on_before_zero_grad"), "Own has its own on_before_zero_grad"),
    "on_after_backward": (counting("on_after_backward"), "Own has its own on_after_backward"),
    "optimizer_step": (counting("optimizer_step"), "Own has its own optimizer_step"),
    "inputs": (subclass(inputs=noisy), "Own has its own inputs"),
    "reference": (partial(LeNet5, backend="reference"), "the backend is reference"),
}


@pytest.mark.slow
@pytest.mark.parametrize("habit", HABITS)
def test_what_is_trained_is_what_is_written(habit, tiny_root, tmp_path):
    make, sentence = HABITS[habit]
    data = digits(tiny_root)
    if habit == "nine classes":
        data.load = lambda **which: [
            x.clamp(max=8) if x.dim() == 1 else x for x in MNISTDataModule.load(data, **which)
        ]
    model, run = fit(make, data, tmp_path, max_epochs=1)
    assert model.learner == ("compiled-gradient" if habit == "inputs" else "eager")
    assert model.why_not_faster.startswith(f"not compiled: {sentence}")
    assert getattr(model, "calls", 3) == run.global_step == 3
    lightning.seed_everything(0, verbose=False)
    expected = make()
    reference(expected, data, **PLAIN)
    for key, weight in expected.net.state_dict().items():
        torch.testing.assert_close(model.net.state_dict()[key], weight, rtol=1e-4, atol=1e-6)


def sgd(**settings):
    return lambda self: torch.optim.SGD(self.parameters(), **{"lr": self.lr, **settings})


def two_groups(self):
    rest = [p for name, p in self.net.named_parameters() if not name.startswith("c1")]
    groups = [{"params": self.net.c1.parameters(), "lr": 0.0}, {"params": rest}]
    return torch.optim.SGD(groups, lr=self.lr)


def scheduled(self):
    optimizer = LeNet5.configure_optimizers(self)
    return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)]


def scheduled_by_step(self):
    optimizer = LeNet5.configure_optimizers(self)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    config = {"scheduler": scheduler, "interval": "step", "frequency": 2}
    return {"optimizer": optimizer, "lr_scheduler": config}


def hooked_optimizer(self):
    optimizer = LeNet5.configure_optimizers(self)
    optimizer.register_step_pre_hook(lambda *_: None)
    return optimizer


# What is returned, who learns, and why not compiled.
OPTIMIZERS = {
    "the same": (sgd(), "compiled", ""),
    "rate": (sgd(lr=1e-12), "compiled-gradient", "the optimizer has learning rates of its own"),
    "momentum": (sgd(momentum=0.9), "compiled-gradient", "the optimizer has learning rates of its"),
    "Adam": (
        lambda self: torch.optim.Adam(self.parameters(), lr=1e-3),
        "compiled-gradient",
        "the optimizer has learning rates of its own",
    ),
    "groups": (two_groups, "compiled-gradient", "the optimizer has learning rates of its own"),
    "hook": (hooked_optimizer, "compiled-gradient", "the optimizer has a hook"),
}


@pytest.mark.slow
@pytest.mark.parametrize("heard", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_keeps_what_it_was_made_with(name, heard, tiny_root, tmp_path):
    configure, learner, sentence = OPTIMIZERS[name]
    callbacks = [Heard()] if heard else []
    make = subclass(configure_optimizers=configure)
    model, run = fit(make, digits(tiny_root), tmp_path, max_epochs=1, callbacks=callbacks)
    assert model.learner == ("eager" if heard else learner)
    assert heard or sentence in model.why_not_faster
    lightning.seed_everything(0, verbose=False)
    expected = make()
    reference(expected, run.datamodule, optimizer=expected.configure_optimizers())
    for key, weight in expected.net.state_dict().items():
        torch.testing.assert_close(model.net.state_dict()[key], weight, rtol=1e-4, atol=1e-5)


def test_rates_that_a_subclass_asks_for_hold_for_its_optimizer_too(tiny_root, tmp_path):
    rates = {"learning_rates": lambda self, count: torch.full((count,), 1e-12, dtype=torch.float64)}
    make = subclass(configure_optimizers=sgd(momentum=0.9), **rates)
    model, _ = fit(make, digits(tiny_root), tmp_path)
    lightning.seed_everything(0, verbose=False)
    before = LeNet5().net.state_dict()
    for key, weight in model.net.state_dict().items():
        torch.testing.assert_close(weight, before[key])


@pytest.mark.slow
@pytest.mark.parametrize("heard", [False, True])
@pytest.mark.parametrize(
    ("configure", "rate"), [(scheduled, 0.1 * 0.5**3), (scheduled_by_step, 0.1 * 0.5**4)]
)
def test_schedulers_go_on_when_they_are_due(configure, rate, heard, tiny_root, tmp_path):
    """Three epochs of three iterations."""
    callbacks = [Heard()] if heard else []
    make = subclass(configure_optimizers=configure)
    _, run = fit(make, digits(tiny_root), tmp_path, max_epochs=3, callbacks=callbacks)
    assert run.optimizers[0].param_groups[0]["lr"] == pytest.approx(rate)


def two_optimizers(self):
    return [torch.optim.SGD(part.parameters(), lr=0.1) for part in (self.net.c1, self.net.c3)]


def plateau(self):
    optimizer = LeNet5.configure_optimizers(self)
    return [optimizer], [torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)]


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"configure_optimizers": two_optimizers}, "must return one optimizer, got 2"),
        ({"configure_optimizers": plateau}, "returns ReduceLROnPlateau"),
        ({"configure_gradient_clipping": nothing}, "clip in on_before_optimizer_step instead"),
        ({"optimizer_step": nothing}, "must call its optimizer_closure"),
    ],
)
def test_what_would_be_ignored_is_refused(own, message, tiny_root, tmp_path):
    with pytest.raises(MisconfigurationException, match=message):
        fit(subclass(**own), digits(tiny_root), tmp_path)


class Freezes(Callback):
    """Freezes and hooks when the training has begun."""

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            pl_module.net.c1.requires_grad_(False)
            self.before = pl_module.net.c1.weight.clone()


def test_what_a_callback_freezes_between_epochs_stays_as_it_is(tiny_root, tmp_path):
    callback = Freezes()
    model, _ = fit(LeNet5, digits(tiny_root), tmp_path, callbacks=[callback])
    assert model.why_not_faster == "not compiled: net.c1.weight is frozen"
    assert torch.equal(model.net.c1.weight, callback.before)


RUN = Run(torch.device("cpu"), "32-true", 1, 1, None, is_scheduled=True)


def choice(model, **changes):
    run = RUN._replace(optimizer=model.configure_optimizers(), **changes)
    return choose(model, run)


def test_a_method_of_the_class_s_as_an_attribute_is_none_of_its_own():
    """Lightning's DDP leaves `forward` so."""
    model = LeNet5()
    model.forward = model.forward
    assert choice(model).learner is Compiled


@pytest.mark.parametrize(
    ("make", "changes", "learner", "why"),
    [
        (LeNet5, {}, Compiled, ""),
        (partial(LeNet5, **TUNED), {}, Compiled, ""),
        (LeNet1998, {}, Compiled, ""),
        (Linear, {}, Sequential, ""),
        (LeNet5, {"device": torch.device("cuda", 0)}, Fused, ""),
        (partial(LeNet5, **TUNED), {"device": torch.device("cuda", 0)}, Fused, ""),
        (LeNet1998, {"device": torch.device("cuda", 0)}, Recorded, ""),
        (
            partial(LeNet5, teachers="runs/teacher-*"),
            {"device": torch.device("cuda", 0)},
            Recorded,
            "not recorded-kernels: there are teachers",
        ),
        (
            LeNet5,
            {
                "device": torch.device("cuda", 0),
                "strategy": "there are 3 ranks",
                "all_reduce": print,
            },
            Fused,
            "",
        ),
        (LeNet5, {"device": torch.device("mps")}, Eager, ""),
        (
            partial(subclass(forward=lambda self, x: self.net(0 * x)), **TUNED),
            {},
            Eager,
            "not compiled: Own has its own forward",
        ),
        (
            subclass(LeNet1998, forward=lambda self, x: self.net(0 * x)),
            {},
            Eager,
            "not compiled: Own has its own forward",
        ),
        (LeNet5, {"precision": "64-true"}, Eager, "not compiled: the precision is 64-true"),
        (Linear, {"precision": "64-true"}, Sequential, ""),
        (Linear, {"precision": "bf16-mixed"}, Eager, "not sequential: the precision is bf16-mixed"),
        (Linear, {"batch_size": 4}, Eager, "not sequential: the mini-batches have 4 images"),
        (LeNet5, {"listeners": ("a hook",)}, Eager, "not compiled: a hook"),
        (LeNet5, {"strategy": "there are 3 ranks"}, Eager, "not compiled: there are 3 ranks"),
        (LeNet5, {"strategy": "there are 3 ranks", "all_reduce": print}, Compiled, ""),
        (Linear, {"strategy": "there are 3 ranks"}, Eager, "not sequential: there are 3 ranks"),
        (
            LeNet5,
            {"device": torch.device("cuda"), "precision": "16-mixed"},
            Eager,
            "not recorded-kernels: the precision is 16-mixed",
        ),
        (
            LeNet5,
            {"device": torch.device("cuda"), "precision": "bf16-mixed"},
            Fused,
            "",
        ),
        (
            LeNet5,
            {"device": torch.device("cuda"), "batch_size": None},
            Eager,
            "not recorded-kernels: the data does not say how many images a mini-batch has",
        ),
    ],
)
def test_a_run_decides_who_learns(make, changes, learner, why, monkeypatch):
    # As where all kernels have been proved.
    monkeypatch.setattr("models.kernels.conv_pool.dispatch.distrust", lambda device: None)
    monkeypatch.setattr("models.kernels.trust.find_obstacle", lambda *_, proving: None)
    assert choice(make(), **changes) == (learner, why)


def test_without_numba_the_reason_is_said(monkeypatch):
    model = LeNet5()
    monkeypatch.setattr("models.kernels.packages.MISSING", {"numba"})
    assert choice(model) == (Eager, "not compiled: numba is not installed")


@pytest.mark.parametrize(
    ("own", "sentence"),
    [
        ({"forward": lambda self, x: self.net(0 * x)}, "Own has its own forward"),
        ({"inputs": lambda self, images: images / 255}, "Own has its own inputs"),
        ({"losses": lambda self, z, y: z}, "Own has its own losses"),
    ],
)
def test_a_linear_model_that_says_more_is_left_to_autograd(own, sentence):
    assert choice(subclass(Linear, **own)()) == (Eager, f"not sequential: {sentence}")


def test_detecting_anomalies_looks_at_autograd(tiny_root, tmp_path):
    model, _ = fit(LeNet5, digits(tiny_root), tmp_path, detect_anomaly=True)
    assert model.learner == "eager"
    assert "detect_anomaly" in model.why_not_faster


def test_a_model_of_one_s_own_needs_no_learner(tiny_root, tmp_path):
    class Own(Classifier):
        losses, predicted_and_true = LeNet5.losses, LeNet5.predicted_and_true

        def inputs(self, images):
            return images.unsqueeze(1) / 255

    def make():
        return Own(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), classes=10, lr=0.1)

    model, run = fit(make, digits(tiny_root), tmp_path, max_epochs=1)
    assert (model.learner, model.why_not_faster) == ("eager", "")
    lightning.seed_everything(0, verbose=False)
    expected = make()
    reference(expected, run.datamodule, **PLAIN)
    torch.testing.assert_close(model.net[1].weight, expected.net[1].weight)


def test_own_hooks_without_super_do_not_stop_the_learner(tiny_root, tmp_path):
    class Own(LeNet5):
        def on_fit_start(self):
            pass

        def on_train_start(self):
            pass

        def on_train_epoch_start(self):
            pass

    own, _ = fit(Own, digits(tiny_root), tmp_path)
    plain, _ = fit(LeNet5, digits(tiny_root), tmp_path)
    assert own.learner == plain.learner == "compiled"
    for name, weight in own.state_dict().items():
        assert torch.equal(weight, plain.state_dict()[name]), name
