"""Whatever a Trainer counts in batches is mini-batches, in any blocks."""

from __future__ import annotations

import importlib
import math
import pkgutil
from types import SimpleNamespace

import pytest
import torch
from helpers import Curve, fit, trainer
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import (
    EMAWeightAveraging,
    LambdaCallback,
    LearningRateMonitor,
    ModelCheckpoint,
    Timer,
    TQDMProgressBar,
)
from lightning.pytorch.callbacks import ProgressBar as LightningsBar
from lightning.pytorch.loggers import CSVLogger

from callbacks.checkpoint import BlockCheckpoint
from callbacks.progress import ProgressBar
from data import FourNineDataModule, MNISTDataModule
from data.counts import HOOKS, UNCONCERNED, longest_on_device
from models.lenet import LeNet5
from models.linear import Linear

pytestmark = pytest.mark.filterwarnings("ignore")


class Sizes(Callback):
    """Keeps the images of each block, and how many mini-batches they are."""

    reads_blocks = True

    def __init__(self):
        self.sizes, self.images = [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.sizes.append(len(batch.sizes))
        self.images.append(batch.order.tolist())


class Validations(Callback):
    """Keeps after how many iterations validation came."""

    def __init__(self):
        self.steps = []

    def on_validation_end(self, trainer, *_):
        if not trainer.sanity_checking:
            self.steps.append(trainer.global_step)


def run(root, folder, *callbacks, data=None, **options):
    """Trains on 130 images, 13 iterations an epoch; returns the model, the Trainer and `Sizes`."""
    sizes = Sizes()
    data = data or MNISTDataModule(str(root), batch_size=10)
    model, trainer = fit(
        LeNet5, data, folder, **{"max_epochs": 1, "callbacks": [sizes, *callbacks], **options}
    )
    return model, trainer, sizes


def test_blocks_are_long_where_nobody_counts(tiny_root, tmp_path):
    assert run(tiny_root, tmp_path)[2].sizes == [13]


def test_validation_by_the_clock_needs_no_short_blocks(tiny_root, tmp_path):
    data = MNISTDataModule(str(tiny_root), batch_size=10, val_size=30)
    assert run(tiny_root, tmp_path, data=data, val_check_interval="00:01:00:00")[2].sizes == [10]


@pytest.mark.parametrize(
    ("limit", "iterations"), [(4, 4), (5, 5), (0.5, 6), (0.1, 1), (1.0, 13), (1, 1), (50, 13)]
)
def test_limit_is_mini_batches(limit, iterations, tiny_root, tmp_path):
    _, trainer, sizes = run(tiny_root, tmp_path, max_epochs=2, limit_train_batches=limit)
    assert trainer.global_step == 2 * iterations
    assert sum(sizes.sizes) == 2 * iterations
    assert sizes.sizes[0] == iterations, "no shorter than need be"
    assert trainer.limit_train_batches == limit, "as it was"


def test_limit_that_leaves_nothing_is_refused_in_mini_batches(tiny_root, tmp_path):
    with pytest.raises(Exception, match=r"0.01 \* 13 < 1"):
        run(tiny_root, tmp_path, limit_train_batches=0.01)


@pytest.mark.parametrize("reload", [0, 1])
def test_limit_holds_for_loaders_that_are_made_again(reload, tiny_root, tmp_path):
    _, trainer, _ = run(
        tiny_root,
        tmp_path,
        max_epochs=3,
        limit_train_batches=4,
        reload_dataloaders_every_n_epochs=reload,
    )
    assert trainer.global_step == 12


def test_a_trainer_has_its_counts_back_after_an_exception(tiny_root, tmp_path):
    run_of_data = []

    class Fails(Callback):
        def on_train_epoch_end(self, trainer, *_):
            run_of_data.append(trainer)
            raise RuntimeError("of the user")

    with pytest.raises(RuntimeError, match="of the user"):
        run(tiny_root, tmp_path, Fails(), limit_train_batches=4)
    assert run_of_data[0].limit_train_batches == 4


@pytest.mark.parametrize(
    ("interval", "steps"),
    [(3, [3, 6, 9]), (10, [10]), (0.5, [5, 10]), (0.25, [2, 4, 6, 8, 10]), (1.0, [10])],
)
def test_validation_comes_after_so_many_mini_batches(interval, steps, tiny_root, tmp_path):
    seen = Validations()
    data = MNISTDataModule(str(tiny_root), batch_size=10, val_size=30)
    run(tiny_root, tmp_path, seen, data=data, val_check_interval=interval)
    assert seen.steps == steps


def test_validation_counts_over_the_ends_of_epochs_where_it_is_asked_to(tiny_root, tmp_path):
    seen = Validations()
    data = MNISTDataModule(str(tiny_root), batch_size=10, val_size=30)
    options = {"val_check_interval": 4, "check_val_every_n_epoch": None, "max_epochs": 2}
    run(tiny_root, tmp_path, seen, data=data, **options)
    assert seen.steps == [4, 8, 12, 16, 20]


def test_validation_interval_that_is_too_long_is_refused_in_mini_batches(tiny_root, tmp_path):
    data = MNISTDataModule(str(tiny_root), batch_size=10, val_size=30)
    with pytest.raises(ValueError, match=r"\(11\) must be less than .* batches \(10\)"):
        run(tiny_root, tmp_path, data=data, val_check_interval=11)


def test_a_mini_batch_of_more_images_than_there_are_is_said(tiny_root, tmp_path, caplog):
    caplog.set_level("INFO")
    data = MNISTDataModule(str(tiny_root), batch_size=1000)
    _, trainer, sizes = run(tiny_root, tmp_path, data=data)
    assert (trainer.global_step, len(sizes.images[0])) == (1, 130)
    assert "batch_size 1,000 is more than the 130 images of an epoch" in caplog.text


def test_overfitting_sees_the_same_images_in_every_epoch(tiny_root, tmp_path, recwarn):
    _, trainer, sizes = run(tiny_root, tmp_path, max_epochs=3, overfit_batches=2)
    assert trainer.global_step == 6
    assert sizes.images[0] == sizes.images[1] == sizes.images[2]
    assert len(sizes.images[0]) == 20
    assert not [warning for warning in recwarn if "shuffling" in str(warning.message)]


def test_two_digits_overfit_too(tiny_root, tmp_path):
    data = FourNineDataModule(root=str(tiny_root), iterations=50)
    sizes = Sizes()
    options = {"overfit_batches": 7, "max_epochs": 2, "callbacks": [sizes]}
    fit(Linear, data, tmp_path, **options)
    assert sizes.images[0] == sizes.images[1]
    assert sizes.sizes == [7, 7]


@pytest.mark.parametrize(
    ("listener", "is_heard"),
    [
        (Curve, True),
        (TQDMProgressBar, True),
        (lambda: LambdaCallback(on_train_batch_start=lambda *_: None), True),
        (Timer, False),
        (ProgressBar, False),
        (lambda: LambdaCallback(on_before_optimizer_step=lambda *_: None), False),
    ],
)
def test_blocks_are_one_mini_batch_where_somebody_listens(listener, is_heard, tiny_root, tmp_path):
    callback = listener()
    is_bar = isinstance(callback, LightningsBar)
    _, _, sizes = run(tiny_root, tmp_path, callback, enable_progress_bar=is_bar)
    assert sizes.sizes == ([1] * 13 if is_heard else [13])


def test_a_model_that_listens_is_heard(tiny_root, tmp_path):
    class Listens(LeNet5):
        calls = 0

        def on_train_batch_end(self, *_):
            self.calls += 1

    data = MNISTDataModule(str(tiny_root), batch_size=10)
    assert fit(Listens, data, tmp_path, max_epochs=1)[0].calls == 13


def test_blocks_of_a_number_are_that_long_whoever_listens(tiny_root, tmp_path):
    data = MNISTDataModule(str(tiny_root), batch_size=10, block_size=5)
    assert run(tiny_root, tmp_path, Curve(), data=data)[2].sizes == [5, 5, 3]


@pytest.mark.parametrize(
    ("options", "callbacks", "why"),
    [
        ({"limit_train_batches": 12}, [], ""),
        ({"limit_train_batches": 12, "val_check_interval": 5}, [], "val_check_interval is 5"),
        ({}, [Curve()], "Curve has its own on_train_batch_end"),
    ],
)
def test_the_run_says_why_its_blocks_are_short(
    options, callbacks, why, tiny_root, tmp_path, caplog
):
    caplog.set_level("INFO")
    data = MNISTDataModule(str(tiny_root), batch_size=10)
    data.longest_block = 12
    run(tiny_root, tmp_path, *callbacks, data=data, **options)
    said = [record.message for record in caplog.records if "Blocks of 1" in record.message]
    assert len(said) == bool(why)
    assert not why or why in said[0]


@pytest.mark.parametrize(
    ("kind", "device", "every", "longest"),
    [
        (MNISTDataModule, "cpu", None, 100),
        (MNISTDataModule, "cuda", None, 1000),
        (MNISTDataModule, "cuda", 300, 300),
        (MNISTDataModule, "cuda", 20, 100),
        (FourNineDataModule, "cuda", None, 10_000),
    ],
)
def test_blocks_are_longer_on_a_gpu_but_where_it_saves_more_often(kind, device, every, longest):
    strategy = SimpleNamespace(root_device=torch.device(device))
    checkpoints = [ModelCheckpoint(), BlockCheckpoint(every)]
    run = SimpleNamespace(strategy=strategy, checkpoint_callbacks=checkpoints)
    assert longest_on_device(run, kind.longest_block) == longest


def test_averages_are_taken_after_each_mini_batch(tiny_root, tmp_path):
    average = EMAWeightAveraging(decay=0.5)
    weights = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            weights.append(pl_module.net.output.bias.detach().clone())

    model, _, _ = run(tiny_root, tmp_path, Watch(), average)
    expected = weights[0]
    for weight in weights[1:]:
        expected = 0.5 * expected + 0.5 * weight
    assert len(weights) == 13
    torch.testing.assert_close(model.net.output.bias.detach(), expected, rtol=1e-4, atol=1e-6)


def test_rates_are_monitored_for_each_mini_batch(tiny_root, tmp_path):
    data = MNISTDataModule(str(tiny_root), batch_size=10)
    monitor, logger = LearningRateMonitor(), CSVLogger(tmp_path)
    logged = []
    logger.log_metrics = lambda metrics, step: logged.append((step, metrics))
    options = {"logger": logger, "log_every_n_steps": 1, "callbacks": [monitor], "max_epochs": 1}
    fit(lambda: LeNet5(lr=0.1, schedule="cosine"), data, tmp_path, **options)
    rates = {step: metrics["lr-SGD"] for step, metrics in logged if "lr-SGD" in metrics}
    assert list(rates) == list(range(13))
    for k, rate in rates.items():
        assert rate == pytest.approx(0.1 * (k + 1) / 13 * (1 + math.cos(math.pi * k / 13)) / 2)


def test_checkpoints_come_after_so_many_iterations(tiny_root, tmp_path):
    saved = ModelCheckpoint(tmp_path / "saved", every_n_train_steps=4, save_top_k=-1)
    run(tiny_root, tmp_path, saved, max_epochs=2, enable_checkpointing=True)
    steps = {int(path.stem.split("step=")[1]) for path in (tmp_path / "saved").iterdir()}
    assert steps == {4, 8, 12, 16, 20, 24}


@pytest.mark.parametrize(
    ("least", "iterations"),
    [({}, 13), ({"min_epochs": 2}, 26), ({"min_steps": 20}, 20), ({"min_steps": 13}, 13)],
)
def test_early_stopping_waits_for_so_many_mini_batches(least, iterations, tiny_root, tmp_path):
    class Stops(Callback):
        def on_train_epoch_end(self, trainer, *_):
            trainer.should_stop = True

    _, trainer, _ = run(tiny_root, tmp_path, Stops(), max_epochs=3, **least)
    assert trainer.global_step == iterations


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"check_val_every_n_epoch": 2}, [20, 40]),
        ({"num_sanity_val_steps": 2}, [10, 20, 30, 40]),
        ({"limit_val_batches": 0}, []),
    ],
)
def test_validation_comes_in_the_epochs_that_are_asked_for(options, steps, tiny_root, tmp_path):
    seen = Validations()
    data = MNISTDataModule(str(tiny_root), batch_size=10, val_size=30)
    run(tiny_root, tmp_path, seen, data=data, max_epochs=4, **options)
    assert seen.steps == steps


@pytest.mark.parametrize(("limit", "images"), [(2, 20), (0.7, 20), (1.0, 30)])
def test_limits_of_evaluations_are_steps_of_them(limit, images, tiny_root, tmp_path):
    data = MNISTDataModule(str(tiny_root), batch_size=10, val_size=30, eval_batch_size=10)
    _, trainer, _ = run(tiny_root, tmp_path, data=data, limit_val_batches=limit)
    assert trainer.callback_metrics["val/total"] == images


@pytest.mark.parametrize(("schedule", "is_said"), [("cosine", True), ("constant", False)])
def test_a_training_that_goes_on_with_another_end_says_what_that_does(
    schedule, is_said, tiny_root, tmp_path, recwarn
):
    def data():
        return MNISTDataModule(str(tiny_root), batch_size=10)

    _, first = fit(lambda: LeNet5(schedule=schedule), data(), tmp_path, max_epochs=2)
    first.save_checkpoint(tmp_path / "a.ckpt")
    for epochs in (2, 3):
        second = trainer(tmp_path, max_epochs=epochs)
        path = tmp_path / "a.ckpt"
        second.fit(LeNet5(schedule=schedule), data(), ckpt_path=path, weights_only=True)
    said = [str(warning.message) for warning in recwarn if "was to end" in str(warning.message)]
    assert said == is_said * [
        "The training was to end after 26 iterations, and now after 39: its learning rate goes on "
        "at 0.25 of the highest instead of 0"
    ]


@pytest.mark.parametrize(
    ("options", "end"),
    [
        ({"max_epochs": 2}, 26),
        ({"max_epochs": -1, "max_steps": 20}, 20),
        ({"max_epochs": 2, "limit_train_batches": 5}, 10),
    ],
)
def test_schedules_end_where_the_training_does(options, end, tiny_root, tmp_path):
    rates = []

    class Rates(Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    data = MNISTDataModule(str(tiny_root), batch_size=10)
    fit(lambda: LeNet5(schedule="cosine"), data, tmp_path, callbacks=[Rates()], **options)
    assert len(rates) == end
    assert rates[-1] == pytest.approx(0, abs=1e-9), "the one that would come next"
    assert rates[-2] > 0


def test_a_training_that_stops_before_its_schedule_ends_says_so(tiny_root, tmp_path, caplog):
    data = MNISTDataModule(str(tiny_root), batch_size=10)
    with caplog.at_level("INFO"):
        fit(lambda: LeNet5(schedule="cosine"), data, tmp_path, max_epochs=2, max_steps=13)
    (line,) = (line for line in caplog.messages if line.startswith("max_steps stops"))
    assert "at iteration 13 of the 26 that its learning rate is for" in line
    assert "at 0.5 of the highest instead of 0." in line


def test_no_callback_of_the_project_is_a_reason_for_shorter_blocks():
    for package in map(importlib.import_module, ("callbacks", "project")):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    listening = [
        kind
        for kind in subclasses(Callback)
        if kind.__module__.split(".")[0] in ("callbacks", "project")
        and not issubclass(kind, UNCONCERNED)
        and any(getattr(kind, hook) is not getattr(Callback, hook) for hook in HOOKS)
    ]
    assert len(listening) > 5
    assert [kind for kind in listening if not getattr(kind, "reads_blocks", False)] == []


def subclasses(kind):
    for below in kind.__subclasses__():
        yield below
        yield from subclasses(below)
