"""The doctor finds what is right and what is wrong, and a training goes around what is wrong."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import refusal

from models.kernels import trust
from models.kernels.conv_pool import cpu as block
from models.kernels.lenet5.cpu import LeNet5Gradient
from project import fit
from project.doctor import __main__ as doctor
from project.doctor import speed, surroundings

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(autouse=True)
def _strange_machine(monkeypatch, tmp_path):
    """One on which nothing has been proved, and a hasty doctor."""
    monkeypatch.setattr(trust, "_verdicts", {})
    monkeypatch.setattr(trust, "_told", set())
    monkeypatch.setattr(trust.machine, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(speed, "SECONDS", 0.01)
    monkeypatch.setattr(speed, "IMAGES", 600)


def test_of_a_machine_whose_numbers_are_right(capsys, tiny):
    doctor.main(["--json"])
    report = json.loads(capsys.readouterr().out)
    assert report["wrong"] == []
    assert report["machine"]["torch"] == torch.__version__
    assert {one["device"] for one in report["kernels"]} >= {"cpu"}
    for one in report["kernels"]:
        assert max(one["errors"].values()) <= one["bound"], one["name"]
    found = {one["name"]: one for one in report["experiments"]}
    assert set(found) == set(speed.experiments())
    assert all(one["ms_per_iteration"] > 0 for one in found.values())
    if not torch.cuda.is_available():
        assert (found["lenet5-original"]["learner"], found["logistic"]["learner"]) == (
            "compiled",
            "sequential",
        )


def make_wrong(monkeypatch):
    """The fused blocks give another answer, and the compiled net another gradient."""
    forward, run = block.forward_two, LeNet5Gradient._run

    def wrong_forward(*args, **kwargs):
        y, state = forward(*args, **kwargs)
        return 1.01 * y, state

    def wrong_run(self, *args):
        each = run(self, *args)
        self._parameters[0].data.mul_(1.01)
        return each

    monkeypatch.setattr(block, "forward_two", wrong_forward)
    monkeypatch.setattr(LeNet5Gradient, "_run", wrong_run)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels of the CPU")
def test_a_wrong_kernel_is_named_and_trainings_take_the_next_way(monkeypatch, capsys, tiny):
    options = ["--trainer.max_epochs=1", "--data.batch_size=20", "--figures=none"]
    fit.main([*options, "--model.backend=composite", "--name=right"])
    make_wrong(monkeypatch)
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        doctor.main([])
    assert stop.value.code == 1
    told = capsys.readouterr().err
    assert "wrong: fused convolutional block on cpu: it is off, original C3 by" in told
    assert "wrong: compiled step (LeNet5, 60 connections) on cpu: it is off" in told
    # In this process by what it has found, in the next by what was kept.
    for name in ("this", "next"):
        fit.main([*options, f"--name={name}"])
        record = json.loads((tiny / f"runs/{name}/version_0/results.json").read_text())
        assert (record["learner"], record["backend"]) == ("eager", "composite")
        assert record["why_not_faster"].startswith("not compiled: ")
        losses = [np.load(tiny / f"runs/{run}/version_0/losses.npy") for run in (name, "right")]
        np.testing.assert_allclose(*losses, rtol=1e-5)
        trust._verdicts.clear()


@pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels of the CPU")
def test_a_training_proves_what_nobody_has(monkeypatch, capsys, tiny):
    make_wrong(monkeypatch)
    fit.main(["--trainer.max_epochs=1", "--data.batch_size=20", "--figures=none"])
    record = json.loads((tiny / "runs/lenet5-original/version_0/results.json").read_text())
    assert (record["learner"], record["backend"]) == ("eager", "composite")
    told = capsys.readouterr().err.splitlines()
    assert len([line for line in told if line.startswith("Not using the ")]) == 2


def test_an_experiment_that_breaks_is_written_down(monkeypatch, tmp_path):
    def broken(self, block, rates):
        raise RuntimeError("no kernel image is available")

    from models.learners.sequential import Sequential

    monkeypatch.setattr(Sequential, "__call__", broken)
    found = speed.examine("logistic", tmp_path)
    assert found == {"name": "logistic", "wrong": "RuntimeError: no kernel image is available"}


def test_its_file_and_a_bad_option(capsys, tiny, monkeypatch):
    monkeypatch.setattr(
        doctor,
        "examine",
        lambda: {
            "machine": surroundings.surroundings(),
            "kernels": [],
            "experiments": [],
            "wrong": [],
        },
    )
    monkeypatch.setenv("HOME", str(tiny))
    limited = []
    monkeypatch.setattr(doctor, "limit_threads", lambda: limited.append(True))
    doctor.main(["--json", "~/report.json"])
    assert limited == [True]
    assert json.loads((tiny / "report.json").read_text())["wrong"] == []
    assert "processors" in capsys.readouterr().out
    assert "unrecognized arguments: --fast" in refusal(capsys, doctor.main, "--fast")


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"/sys/fs/cgroup/cpu.max": "150000 100000"}, 1.5),
        ({"/sys/fs/cgroup/cpu.max": "max 100000"}, None),
        (
            {
                "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000",
                "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            2.0,
        ),
        ({}, None),
    ],
)
def test_the_quota_of_a_container(files, quota, monkeypatch):
    files = files | {"/proc/self/cgroup": "1:cpu:/\n0::/\n"}

    def read_text(self, **_):
        try:
            return files[os.fspath(self)]
        except KeyError:
            raise FileNotFoundError from None

    monkeypatch.setattr(Path, "read_text", read_text)
    assert surroundings.cpu_quota() == quota
