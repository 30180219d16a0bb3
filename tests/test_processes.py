"""One process or several: what the environment says, and what the Trainer is told."""

from __future__ import annotations

import json
import os
from unittest import mock

import pytest
from helpers import free_port, python, refusal
from lightning.pytorch.utilities import rank_zero_only

from project import evaluate, fit, processes
from project.bench import __main__ as bench
from project.errors import UserError
from project.reproduce import __main__ as reproduce
from project.reproduce.parts import PARTS

SMALL = ["--data.batch_size=20", "--data.block_size=3", "--trainer.max_epochs=1", "--figures=none"]
SHORT = ["--data.batch_size=1000", "--trainer.max_steps=20", "--figures=none"]
TWO = ["--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp"]

MEETING = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}  # where nobody answers
TORCHRUN = MEETING | {
    "TORCHELASTIC_RUN_ID": "none",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
    "RANK": "1",
    "LOCAL_RANK": "1",
    "GROUP_RANK": "0",
    "WORLD_SIZE": "2",
    "LOCAL_WORLD_SIZE": "2",
    "GROUP_WORLD_SIZE": "1",
}
SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_JOB_NAME": "lenet",
    "SLURM_NODELIST": "127.0.0.1",
    "SLURM_NODEID": "0",
}
BATCH = SLURM | {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "4"}


def srun(number, tasks):
    """What a process that srun has started finds."""
    return SLURM | {
        "SLURM_PROCID": str(number),
        "SLURM_LOCALID": str(number),
        "SLURM_NTASKS": str(tasks),
        "SLURM_STEP_NUM_TASKS": str(tasks),
        "SLURM_STEP_NUM_NODES": "1",
    }


@pytest.fixture(autouse=True)
def _keep_environment():
    with mock.patch.dict(os.environ):
        yield


def surround(monkeypatch, environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    # As Lightning takes it from the environment when it is imported.
    rank = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
    numbers = [environment[name] for name in rank if name in environment]
    monkeypatch.setattr(rank_zero_only, "rank", int(numbers[0]) if numbers else 0)


LEFT_OVER = {
    "local rank": {"LOCAL_RANK": "1"},
    "rank": {"RANK": "1"},
    "rank and size": {"RANK": "1", "WORLD_SIZE": "2"},
    "number of the machine": {"NODE_RANK": "1"},
    "torchrun": {"TORCHELASTIC_RUN_ID": "none"},
    "torchrun's restart": {"TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_RESTART_COUNT": "1"},
}
ALONE = {
    "meeting place": MEETING,
    "batch job of several tasks": BATCH,
    "batch job of several tasks on each node": BATCH | {"SLURM_NTASKS_PER_NODE": "4"},
    "shell of salloc": BATCH | {"SLURM_JOB_NAME": "interactive"},
    "second of a sweep": srun(1, 4),
    "second of a sweep, by its other name": {"SLURM_PROCID": "1", "SLURM_NTASKS_PER_NODE": "4"},
    "jsrun's rank": {"JSM_NAMESPACE_RANK": "1"},
    "the only rank": MEETING | {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"},
}


@pytest.mark.slow
@pytest.mark.parametrize("environment", LEFT_OVER.values(), ids=LEFT_OVER)
def test_what_is_left_over_is_named_and_ignored(environment, tiny, monkeypatch, capsys):
    surround(monkeypatch, environment)
    fit.main(SMALL)
    printed = capsys.readouterr()
    assert "test accuracy" in printed.out
    (line,) = printed.err.splitlines()
    assert f"unset {' '.join(sorted(environment))}" in line
    assert (tiny / "runs/lenet5-original/version_0/results.json").exists()


@pytest.mark.parametrize("environment", ALONE.values(), ids=ALONE)
def test_one_device_is_one_process(environment, tiny, monkeypatch, capsys):
    surround(monkeypatch, environment)
    fit.main(SMALL)
    printed = capsys.readouterr()
    assert "test accuracy" in printed.out
    assert printed.err == ""
    (checkpoint,) = tiny.rglob("*.ckpt")
    surround(monkeypatch, environment)
    evaluate.main([f"--ckpt_path={checkpoint}"])
    assert "test accuracy" in capsys.readouterr().out


def test_sweep_is_told_what_it_is(tiny, monkeypatch, capsys):
    surround(monkeypatch, srun(0, 4))
    fit.main(SMALL)
    (line,) = capsys.readouterr().err.splitlines()
    assert "srun has started 4 of this program; each is a run of its own." in line


INSIDE = "starts its ranks inside the program"
DDP = '{"class_path": "DDPStrategy", "init_args": {"start_method": "fork"}}'
REFUSED = {
    "spawned ranks": ({}, [*TWO, "--trainer.strategy=ddp_spawn"], INSIDE),
    "forked ranks": ({}, [*TWO, "--trainer.strategy=ddp_fork"], INSIDE),
    "a notebook's ranks": ({}, [*TWO, "--trainer.strategy=ddp_notebook"], INSIDE),
    "one spawned rank": ({}, ["--trainer.strategy=ddp_spawn_find_unused_parameters_true"], INSIDE),
    "forked ranks by class": ({}, [*TWO, f"--trainer.strategy={DDP}"], INSIDE),
    "ranks of another launcher": (
        MEETING | {"RANK": "1", "WORLD_SIZE": "2"},
        [],
        "the environment says RANK=1, WORLD_SIZE=2, the options that the ranks are 1",
    ),
    "one rank of another launcher": (
        MEETING | {"LOCAL_RANK": "0", "WORLD_SIZE": "1"},
        TWO,
        "unset LOCAL_RANK WORLD_SIZE",
    ),
    "second machine of one": (MEETING | {"NODE_RANK": "1"}, TWO, "unset NODE_RANK"),
    "machines that cannot meet": ({}, [*TWO, "--trainer.num_nodes=2"], "have nowhere to meet"),
    "torchrun that has ended": (TORCHRUN, [], "no torchrun answers at MASTER_ADDR=127.0.0.1"),
    "rank that is no number": (
        MEETING | {"RANK": "0", "WORLD_SIZE": "two"},
        [],
        "the environment says WORLD_SIZE=two, which is no number",
    ),
    "port of a service": (
        {"MASTER_PORT": "tcp://10.0.0.1:80"},
        TWO,
        "MASTER_PORT=tcp://10.0.0.1:80, which is no number",
    ),
    "more tasks than devices": (srun(1, 4), TWO, "the number of tasks per node"),
    "fewer nodes than asked for": (
        srun(1, 2) | {"SLURM_NNODES": "1"},
        [*TWO, "--trainer.num_nodes=2"],
        "the number of nodes configured in SLURM",
    ),
    "jsrun without its file": (
        dict.fromkeys(("LSB_JOBID", "JSM_NAMESPACE_LOCAL_RANK", "JSM_NAMESPACE_SIZE"), "1")
        | {"LSB_DJOB_RANKFILE": ""},
        [],
        "LSB_DJOB_RANKFILE",
    ),
}


@pytest.mark.parametrize(("environment", "options", "words"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_together_is_refused_in_one_line(
    environment, options, words, tiny, monkeypatch, capsys
):
    for program, usual in ((fit, SMALL), (evaluate, ["--trainer.accelerator=cpu"])):
        surround(monkeypatch, environment)
        assert words in refusal(capsys, program.main, *usual, *options)
    assert not (tiny / "runs").exists()


def test_report_and_benchmark_are_not_started_several_times(workplace, monkeypatch, capsys):
    for program, words in ((reproduce, "would write one report"), (bench, "start project.bench")):
        surround(monkeypatch, srun(1, 2))
        assert words in refusal(capsys, program.main)
    assert not list(workplace.iterdir())


def test_ranks_share_only_what_is_done_with_many_seeds(monkeypatch):
    surround(monkeypatch, TORCHRUN)
    mean, *shared = (part for part in PARTS if part.name in ("mean", "table1", "lenet"))
    reproduce.check(shared)
    with pytest.raises(UserError, match="ranks share table1, lenet only; run mean without torch"):
        reproduce.check([mean, *shared])


def world_size(folder):
    (results,) = folder.rglob("results.json")
    return json.loads(results.read_text())["world_size"]


@pytest.mark.slow
def test_ranks_start_in_a_batch_job_and_among_what_is_left_over(tmp_path, mnist_root):
    elsewhere = {"LOCAL_RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "192.0.2.1"}
    left = BATCH | elsewhere | {"MNIST_ROOT": str(mnist_root), "OMP_NUM_THREADS": "1"}
    done = python("-m", "project.fit", *TWO, *SHORT, folder=tmp_path, **left)
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stderr.splitlines() if not line.startswith("Compiling"))
    assert "Ignored: LOCAL_RANK=1 WORLD_SIZE=4" in line
    assert world_size(tmp_path) == 2


@pytest.mark.slow
def test_ranks_that_srun_has_started_share_a_run(nursery, tmp_path, mnist_root):
    """Without --ntasks-per-node, and as part of a larger job."""
    job = {"MASTER_PORT": str(free_port()), "SLURM_NTASKS_PER_NODE": "4"}
    job |= {"MNIST_ROOT": str(mnist_root), "OMP_NUM_THREADS": "1"}
    runs = [
        nursery.start(*TWO, *SHORT, folder=tmp_path, **job, **srun(number, 2))
        for number in range(2)
    ]
    ranks = [run.wait() for run in runs]
    assert [rank.returncode for rank in ranks] == [0, 0], ranks
    assert ["test accuracy" in rank.stdout for rank in ranks] == [True, False]
    assert world_size(tmp_path) == 2


def test_settling_twice_changes_nothing(monkeypatch, capsys):
    surround(monkeypatch, {"RANK": "1"} | BATCH)
    processes.settle()
    assert capsys.readouterr().err
    before = dict(os.environ)
    processes.settle()
    assert dict(os.environ) == before
    assert processes.ranks() is None
    assert capsys.readouterr().err == ""
