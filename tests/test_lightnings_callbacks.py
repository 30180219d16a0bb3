"""Every public callback of Lightning acts in blocks as it does with mini-batches, or is refused."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from helpers import Curve, fit, refusal
from lightning.pytorch import callbacks
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import (
    Checkpoint,
    EMAWeightAveraging,
    ModelSummary,
    ProgressBar,
    WeightAveraging,
)
from lightning.pytorch.loggers import CSVLogger

from data import MNISTDataModule
from models.lenet import LeNet5
from models.linear import Linear
from project import fit as program
from project.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore")

# What they need beside their defaults.
OPTIONS = {
    "BackboneFinetuning": {"unfreeze_backbone_at_epoch": 1},
    "BatchSizeFinder": {"max_trials": 2, "steps_per_trial": 1},
    "DeviceStatsMonitor": {},
    "EarlyStopping": {"monitor": "val/loss", "min_delta": 9, "patience": 1},
    "EMAWeightAveraging": {},
    "LambdaCallback": {"on_train_batch_end": lambda *_: None},
    "LearningRateFinder": {"num_training_steps": 4},
    "LearningRateMonitor": {},
    "ModelCheckpoint": {},
    "ModelPruning": {"pruning_fn": "l1_unstructured", "amount": 0.5},
    "ModelSummary": {},
    "OnExceptionCheckpoint": {},
    "RichModelSummary": {},
    "RichProgressBar": {},
    "SpikeDetection": {},
    "StochasticWeightAveraging": {"swa_lrs": 0.05},
    "ThroughputMonitor": {"batch_size_fn": lambda block: int(block.totals.sum())},
    "Timer": {"duration": {"minutes": 9}},
    "TQDMProgressBar": {},
    "WeightAveraging": {},
}
# Base classes; what is refused.
OTHERS = {
    *("BaseFinetuning", "BasePredictionWriter", "Callback", "Checkpoint", "ProgressBar"),
    "GradientAccumulationScheduler",
}


class Backbone(LeNet5):
    """One whose first layer may be frozen, as people write it."""

    @property
    def backbone(self):
        return self.net.c1

    def configure_optimizers(self):
        return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], lr=self.lr)


@pytest.fixture(autouse=True)
def _device_stats(monkeypatch):
    """Stands in for psutil, which need not be installed."""
    monkeypatch.setattr(callbacks.device_stats_monitor, "_PSUTIL_AVAILABLE", True)
    monkeypatch.setattr(CPUAccelerator, "get_device_stats", lambda *_: {"cpu_percent": 1.0})


def test_each_is_known():
    """A newer Lightning may have more."""
    assert set(callbacks.__all__) <= OPTIONS.keys() | OTHERS


def trained(name, options, block_size, root, folder):
    """The weights, what was logged and how many iterations there were."""
    callback = getattr(callbacks, name)(**options)
    logger, logged = CSVLogger(folder), []
    logger.log_metrics = lambda metrics, step: logged.append((step, sorted(metrics)))
    if isinstance(callback, Checkpoint):
        callback.dirpath = folder / "saved"
    model, run = fit(
        Backbone if name == "BackboneFinetuning" else LeNet5,
        MNISTDataModule(str(root), batch_size=10, val_size=30, block_size=block_size),
        folder,
        max_epochs=3,
        callbacks=[callback],
        logger=logger,
        log_every_n_steps=2,
        enable_checkpointing=isinstance(callback, Checkpoint),
        enable_progress_bar=isinstance(callback, ProgressBar),
        enable_model_summary=isinstance(callback, ModelSummary),
    )
    saved = sorted(path.name for path in folder.glob("saved/*"))
    return model.state_dict(), (run.global_step, run.current_epoch, logged, saved)


@pytest.mark.parametrize("name", [name for name in OPTIONS if hasattr(callbacks, name)])
def test_it_acts_as_with_mini_batches(name, tiny_root, tmp_path):
    if name == "OnExceptionCheckpoint":
        OPTIONS[name]["dirpath"] = tmp_path
    found = [
        trained(name, OPTIONS[name], size, tiny_root, tmp_path / str(size)) for size in ("auto", 1)
    ]
    assert found[0][1] == found[1][1]
    for key, weight in found[0][0].items():
        torch.testing.assert_close(weight, found[1][0][key], rtol=1e-4, atol=1e-6)


def test_a_search_for_a_batch_size_leaves_no_losses_behind(tiny_root, tmp_path):
    """The mean of the first epoch is of that alone."""
    means, curve = [], Curve()

    class See(callbacks.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            means.append(trainer.callback_metrics["train/loss"])

    search = callbacks.BatchSizeFinder(max_trials=2, steps_per_trial=1, init_val=65, max_val=65)
    data = MNISTDataModule(str(tiny_root), batch_size=10)
    fit(LeNet5, data, tmp_path, max_epochs=1, callbacks=[search, See(), curve])
    assert data.batch_size == 65
    torch.testing.assert_close(means[0], torch.cat(curve.losses).mean())


@pytest.mark.parametrize("size", ["auto", 1])
def test_a_backbone_is_frozen_then_learns_at_its_own_rate(size, tiny_root, tmp_path):
    """Against the same epochs written out."""
    seen = []

    class See(callbacks.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            rates = [group["lr"] for group in trainer.optimizers[0].param_groups]
            seen.append((rates, pl_module.net.c1.weight.detach().clone()))

    finetuning = callbacks.BackboneFinetuning(unfreeze_backbone_at_epoch=1)
    data = MNISTDataModule(str(tiny_root), batch_size=10, block_size=size)
    model, _ = fit(Backbone, data, tmp_path, max_epochs=3, callbacks=[finetuning, See()])
    torch.manual_seed(0)
    start = Backbone().backbone.weight
    rates, weights = zip(*seen, strict=True)
    assert torch.equal(weights[0], start)
    assert not torch.equal(weights[1], start)
    # A tenth at first, and twice as much in each epoch.
    assert rates[0] == [0.1]
    assert rates[1] == pytest.approx([0.1, 0.01])
    assert rates[2] == pytest.approx([0.1, 0.02])
    expected = finetuned(tiny_root, rates)
    for name, weight in model.net.state_dict().items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-4, atol=1e-6, msg=name)


def finetuned(root, rates):
    """The weights behind such a training, in a loop of plain torch."""
    torch.manual_seed(0)
    net = LeNet5(backend="composite").net
    data = MNISTDataModule(str(root), batch_size=10)
    data.setup("fit")
    order = data.order()
    groups = [[p for n, p in net.named_parameters() if not n.startswith("c1")]]
    groups.append(list(net.c1.parameters()))
    for epoch, of_epoch in enumerate(rates):
        order.set_epoch(epoch)
        for index in order.indices().split(10):
            x = data.train_images[index].unsqueeze(1) / 255
            loss = torch.nn.functional.cross_entropy(net(x), data.train_labels[index])
            net.zero_grad()
            loss.backward()
            with torch.no_grad():
                for rate, group in zip(of_epoch, groups, strict=False):
                    for parameter in group:
                        parameter -= rate * parameter.grad
    return net.state_dict()


def test_device_stats_without_psutil_are_refused(tiny_root, tmp_path, monkeypatch):
    monkeypatch.setattr(callbacks.device_stats_monitor, "_PSUTIL_AVAILABLE", False)
    with pytest.raises(ModuleNotFoundError, match="psutil"):
        trained("DeviceStatsMonitor", {}, "auto", tiny_root, tmp_path)


def test_accumulation_is_refused(tiny_root, tmp_path):
    options = {"scheduling": {0: 2}}
    with pytest.raises(RuntimeError, match="switch to automatic optimization"):
        trained("GradientAccumulationScheduler", options, "auto", tiny_root, tmp_path)


TYPED = {
    "EarlyStopping": ["monitor=val/loss"],
    "ModelPruning": ["pruning_fn=l1_unstructured", "amount=0.5"],
    "OnExceptionCheckpoint": ["dirpath=mine"],
    "StochasticWeightAveraging": ["swa_lrs=0.05"],
    "ThroughputMonitor": ["batch_size_fn=test_lightnings_callbacks.images"],
}
"""What they need on a command line."""

REFUSED = {
    "BackboneFinetuning": "freezes the module `backbone` of a model; LeNet5 has none",
    "BaseFinetuning": "NotImplementedError in BaseFinetuning.freeze_before_training",
    "EarlyStopping": "EarlyStopping needs monitor.",
    "GradientAccumulationScheduler": "GradientAccumulationScheduler needs scheduling.",
    "ModelPruning": "ModelPruning needs pruning_fn.",
    "OnExceptionCheckpoint": "OnExceptionCheckpoint needs dirpath.",
    "ProgressBar": "Multiple subclasses with name ProgressBar. Give the full class path",
    "StochasticWeightAveraging": "StochasticWeightAveraging needs swa_lrs.",
    "ThroughputMonitor": "ThroughputMonitor needs batch_size_fn.",
    "Timer": "for a limit in time there is --trainer.max_time",
}
"""What is said of those that cannot do with their defaults."""

SHORT = ["--data.batch_size=20", "--data.val_size=30", "--figures=none", "--trainer.max_epochs=2"]


def images(block):
    """How many a block has, over all ranks."""
    return int(block.totals.sum())


if torch.cuda.is_available():
    REFUSED["WeightAveraging"] = "averages whole numbers too"
    TYPED["WeightAveraging"] = ["use_buffers=false"]


def test_a_mean_of_whole_numbers_is_refused_on_a_gpu():
    """Torch ends it in an error of its own, behind the first epoch."""
    strategy = SimpleNamespace(root_device=torch.device("cuda"))
    for callback, model, is_refused in (
        (WeightAveraging(), LeNet5(), True),
        (WeightAveraging(use_buffers=False), LeNet5(), False),
        (WeightAveraging(device="cpu"), LeNet5(), False),
        (EMAWeightAveraging(), LeNet5(), False),
        (WeightAveraging(), Linear("mse"), False),
    ):
        run = SimpleNamespace(callbacks=[callback], strategy=strategy)
        with pytest.raises(UserError) if is_refused else nullcontext():
            program._check_callbacks(SimpleNamespace(trainer=run, model=model))


@pytest.mark.parametrize("name", callbacks.__all__)
def test_it_is_typed_with_its_defaults_or_refused(name, tiny, capsys):
    callback = f"--trainer.callbacks={name}"
    if name in REFUSED:
        assert REFUSED[name] in refusal(capsys, program.main, *SHORT, callback)
    if name in TYPED or name not in REFUSED:
        options = [f"--trainer.callbacks.{option}" for option in TYPED.get(name, [])]
        program.main([*SHORT, callback, *options])
        assert list(tiny.glob("runs/lenet5-original/version_*/results.json"))
