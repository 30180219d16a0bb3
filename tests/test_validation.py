"""Validation is seen, monitored and chosen by; what watches a training is left out elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from helpers import Curve, refusal
from helpers import fit as train
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import CSVLogger

from data import MNISTDataModule
from models.lenet import LeNet5
from project import evaluate, export, fit, predict

SHORT = ["--data.batch_size=20", "--figures=none", "--trainer.max_epochs=3"]
VALIDATED = [*SHORT, "--data.val_size=30"]
RUN = Path("runs/lenet5-original/version_0")

pytestmark = pytest.mark.filterwarnings("ignore")

CALLBACKS = """
trainer:
  max_epochs: 2
  callbacks:
  - class_path: lightning.pytorch.callbacks.EarlyStopping
    init_args: {monitor: train/loss}
  - class_path: lightning.pytorch.callbacks.ModelCheckpoint
    init_args: {monitor: val/accuracy, mode: max, dirpath: mine}
  - lightning.pytorch.callbacks.LearningRateMonitor
"""


def record():
    return json.loads((RUN / "results.json").read_text())


def test_validation_stands_in_the_table_and_in_the_record(tiny, capsys):
    fit.main(VALIDATED)
    printed = capsys.readouterr().out
    validation = record()["validation"]
    assert validation["total"] == 30
    assert f"│ validation accuracy │ {validation['accuracy']:.2%}  (" in printed


def test_without_a_test_the_rest_is_told(tiny, capsys):
    fit.main([*VALIDATED, "--trainer.limit_test_batches=0"])
    printed = capsys.readouterr().out
    assert "validation accuracy" in printed
    assert "test accuracy" not in printed
    assert record()["test"] is None
    last = ["--ckpt_path=last", "--trainer.limit_test_batches=0"]
    assert "nothing was tested" in refusal(capsys, evaluate.main, *last)


def test_best_validation_is_kept_and_found(tiny, capsys):
    fit.main(VALIDATED)
    (best,) = RUN.glob("checkpoints/best-*.ckpt")
    saved = torch.load(best, weights_only=True)
    (state,) = (value for key, value in saved["callbacks"].items() if "BestCheckpoint" in key)
    assert state["best_model_score"] >= record()["validation"]["accuracy"] - 1e-6
    capsys.readouterr()
    evaluate.main(["--ckpt_path=best"])
    assert str(best) in capsys.readouterr().err
    evaluate.main(["--ckpt_path=last"])
    assert str(best) not in capsys.readouterr().err
    fit.main([f"--ckpt_path={best}", "--name=more", "--trainer.max_epochs=4"])
    assert json.loads(Path("runs/more/version_0/results.json").read_text())["iterations"] == 20


def test_without_validation_there_is_no_best(tiny, capsys):
    fit.main(SHORT)
    assert not list(RUN.glob("checkpoints/best-*"))
    assert "--data.val_size" in refusal(capsys, evaluate.main, "--ckpt_path=best")


@pytest.mark.parametrize("monitor", ["train/loss", "val/loss", "val/accuracy"])
def test_a_training_that_is_stopped_early_says_so(monitor, tiny, capsys):
    stop = ["--trainer.callbacks=EarlyStopping", f"--trainer.callbacks.monitor={monitor}"]
    threshold = ["--trainer.callbacks.patience=1", "--trainer.callbacks.min_delta=100"]
    fit.main([*VALIDATED, *stop, *threshold])
    assert f"Stopped early, after 10 iterations: the best {monitor} is" in capsys.readouterr().out


def test_runs_with_callbacks_are_tested_used_and_exported(tiny, capsys):
    Path("mine.yaml").write_text("experiment: lenet5\nname: lenet5-original\n" + CALLBACKS)
    fit.main(["--config=mine.yaml", "--data.val_size=30", "--data.batch_size=20"])
    assert "callbacks" in yaml.safe_load((RUN / "config.yaml").read_text())["trainer"]
    evaluate.main(["--ckpt_path=last"])
    images = Path("t.idx")
    images.write_bytes(bytes([0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 28, 0, 0, 0, 28]) + b"\x09" * 784)
    predict.main(["--ckpt_path=last", str(images)])
    export.main(["--ckpt_path=last", "--format=pt2"])
    assert list(Path("mine").glob("*.ckpt"))


def test_a_plain_trainer_logs_and_monitors_the_training_loss(tiny_root, tmp_path):
    logged, logger = [], CSVLogger(tmp_path)
    logger.log_metrics = lambda metrics, step: logged.append((step, metrics))
    curve = Curve()
    stop = EarlyStopping("train/loss", patience=1, min_delta=100)
    data = MNISTDataModule(str(tiny_root), batch_size=10)
    options = {"max_epochs": 5, "logger": logger, "callbacks": [stop, curve]}
    _, trainer = train(LeNet5, data, tmp_path, **options)
    assert trainer.global_step == 26
    losses = torch.cat(curve.losses)[13:]
    sizes = torch.tensor([10.0] * 12 + [10])
    expected = (losses * sizes).sum() / sizes.sum()
    torch.testing.assert_close(trainer.callback_metrics["train/loss"], expected)
    assert [step for step, metrics in logged if "train/loss" in metrics] == [12, 25]
