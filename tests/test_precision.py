"""float32 means float32, on GPUs too; what a training held is given back behind it."""

from __future__ import annotations

import pytest
import torch
from helpers import fit, refusal

from callbacks import timing
from data import MNISTDataModule
from models.lenet import LeNet5
from project import evaluate, predict
from project import fit as program


@pytest.mark.parametrize("module", [program, evaluate, predict])
def test_programs_compute_in_float32(module, workplace, capsys):
    torch.backends.cudnn.allow_tf32 = True
    refusal(capsys, module.main, "--no_such_option")
    # Before torch 2.9 nothing else says it.
    convolutions = getattr(torch.backends.cudnn, "conv", None)
    assert convolutions is None or convolutions.fp32_precision in ("none", "ieee")
    assert not torch.backends.cudnn.allow_tf32


@pytest.mark.filterwarnings("ignore")
def test_a_learner_is_given_back_after_its_training(tiny_root, tmp_path):
    data = MNISTDataModule(str(tiny_root), batch_size=50)
    model, _ = fit(lambda: LeNet5(backend="composite"), data, tmp_path, max_epochs=1)
    assert model._learner is None
    assert model.learner == "eager"


def test_the_clock_waits_for_the_device_of_the_run(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    device = torch.device("cuda", 1)
    timing._synchronize(device)
    assert waited == [device]
