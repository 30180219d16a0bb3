"""What is asked for through Lightning is said: profiles, summaries, logs, bars, ends."""

from __future__ import annotations

import logging
import sys

import pytest
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
    ("option", "words"),
    [
        ("--trainer.profiler=simple", "Profiler Report"),
        ("--trainer.enable_model_summary=true", "Trainable params"),
        ("--trainer.callbacks=ModelSummary", "Trainable params"),
        ("--trainer.max_time=00:00:00:00", "Time limit reached"),
        ("--trainer.callbacks=TQDMProgressBar", "Blocks of 1"),
        ("--trainer.callbacks=RichProgressBar", "Blocks of 1"),
    ],
)
def test_what_is_asked_for_is_said(option, words, tiny, capsys):
    fit.main([*SHORT, option])
    printed = capsys.readouterr()
    assert words in printed.out + printed.err


def test_a_plain_training_says_nothing_else(tiny, capsys):
    fit.main(SHORT)
    printed = capsys.readouterr()
    assert not printed.err
    assert printed.out.startswith("lenet5-original: 60,806 parameters")


@pytest.mark.parametrize(("every", "steps"), [(1, list(range(1, 8))), (3, [3, 6])])
def test_losses_are_logged_as_often_as_they_are_asked_for(every, steps, tiny, monkeypatch):
    logged = []
    monkeypatch.setattr(
        CSVLogger, "log_metrics", lambda self, metrics, step: logged.append((step, metrics))
    )
    logger = ["--trainer.logger=CSVLogger", "--trainer.logger.save_dir=csv"]
    fit.main([*SHORT, *logger, f"--trainer.log_every_n_steps={every}"])
    assert [step for step, metrics in logged if "train/loss" in metrics] == steps
