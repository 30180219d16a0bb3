"""What is asked for through Lightning is said: profiles, summaries, logs, bars, ends."""

from __future__ import annotations

import logging
import sys
from typing import ClassVar

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger

from project import fit

SHORT = ["--data.batch_size=20", "--figures=none", "--trainer.max_epochs=1"]  # of 7 iterations


@pytest.fixture(autouse=True)
def _lightning_speaks_here(capsys, monkeypatch):
    for name in ("lightning.pytorch", "lightning.fabric"):
        for handler in logging.getLogger(name).handlers:
            if type(handler) is logging.StreamHandler:  # not one of pytest
                monkeypatch.setattr(handler, "stream", sys.stderr)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--trainer.profiler=simple", "Profiler Report"),
        ("--trainer.enable_model_summary=true", "Trainable params"),
        ("--trainer.callbacks=ModelSummary", "Trainable params"),
        ("--trainer.max_time=00:00:00:00", "Time limit reached"),
        (
            "--trainer.callbacks=ModelCheckpoint --trainer.callbacks.monitor=train/loss "
            "--trainer.callbacks.verbose=true",
            "'train/loss' reached",
        ),
        (
            "--trainer.callbacks=EarlyStopping --trainer.callbacks.monitor=train/loss "
            "--trainer.callbacks.verbose=true",
            "Metric train/loss improved",
        ),
        ("--trainer.callbacks=TQDMProgressBar", "Blocks of 1"),
        ("--trainer.callbacks=RichProgressBar", "Blocks of 1"),
        ("--trainer.enable_progress_bar=true", "7/7"),
        ("--trainer.fast_dev_run=3", "nothing is written"),
    ],
)
def test_what_is_asked_for_is_said(options, words, tiny, capsys):
    fit.main([*SHORT, *options.split()])
    printed = capsys.readouterr()
    assert words in printed.out + printed.err


def test_a_plain_training_says_nothing_else(tiny, capsys):
    fit.main(SHORT)
    printed = capsys.readouterr()
    assert not printed.err
    assert printed.out.startswith("lenet5-original: 60,806 parameters")


class Looks(Callback):
    """Keeps the state of torch while the digits are tested."""

    seen: ClassVar[dict[str, bool]]

    def on_test_batch_start(self, *_):
        Looks.seen = {
            "deterministic=true": torch.are_deterministic_algorithms_enabled(),
            "deterministic=warn": torch.is_deterministic_algorithms_warn_only_enabled(),
            "benchmark=true": torch.backends.cudnn.benchmark,
            "inference_mode=false": not torch.is_inference_mode_enabled(),
        }


@pytest.fixture
def _torch_as_it_was(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("_torch_as_it_was")
@pytest.mark.parametrize(
    "flag", ["deterministic=true", "deterministic=warn", "benchmark=true", "inference_mode=false"]
)
def test_torch_is_set_as_it_is_asked_for(flag, tiny):
    options = ["--trainer.callbacks=test_said.Looks", f"--trainer.{flag}"]
    fit.main([*SHORT, *options])
    assert Looks.seen[flag]


@pytest.mark.parametrize(("every", "steps"), [(1, list(range(1, 8))), (3, [3, 6])])
def test_losses_are_logged_as_often_as_they_are_asked_for(every, steps, tiny, monkeypatch):
    logged = []
    monkeypatch.setattr(
        CSVLogger, "log_metrics", lambda self, metrics, step: logged.append((step, metrics))
    )
    logger = ["--trainer.logger=CSVLogger", "--trainer.logger.save_dir=csv"]
    fit.main([*SHORT, *logger, f"--trainer.log_every_n_steps={every}"])
    assert [step for step, metrics in logged if "train/loss" in metrics] == steps
