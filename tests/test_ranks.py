"""A rank that is lost or broken ends its job, soon and with one line; and the CPU beside a GPU."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch
from helpers import free_port, python, trainer
from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import CUDAAccelerator
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from callbacks import ranks
from callbacks.interrupt import Interrupted
from callbacks.ranks import EndRanks, limit_waiting
from project.errors import user_errors

WAITS = """
import os, sys, time
from datetime import timedelta
import torch
import torch.distributed as dist
from project.errors import user_errors

rank, port = map(int, sys.argv[1:])
os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
with user_errors():
    dist.init_process_group("gloo", rank=rank, world_size=2, timeout=timedelta(seconds=3))
    dist.all_reduce(torch.ones(3))
    if rank:
        time.sleep(15)
    dist.all_reduce(torch.ones(3))
"""


def test_ranks_wait_for_each_other_less_than_two_minutes(tmp_path):
    run = trainer(tmp_path, devices=2, strategy="ddp")
    assert run.strategy._timeout > timedelta(minutes=2), "or this test could not fail"
    limit_waiting(run)
    assert run.strategy._timeout < timedelta(minutes=2)


@pytest.mark.slow
def test_a_rank_that_never_comes_is_one_line(tmp_path):
    port = str(free_port())
    late = subprocess.Popen([sys.executable, "-c", WAITS, "1", port], stderr=subprocess.DEVNULL)
    done = python("-c", WAITS, "0", port)
    late.kill()
    late.wait()
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "error: another rank has ended; what it printed says why."
    )


@pytest.mark.parametrize(
    "text",
    [
        "[Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7) ran for 100001",
        "NCCL error in: ProcessGroupNCCL.cpp:3690, remote process exited or there was a network",
        "NCCL communicator was aborted on rank 1.",
    ],
)
def test_what_nccl_says_of_a_lost_rank_is_one_line(text, capsys):
    with pytest.raises(SystemExit) as stop, user_errors():
        raise torch.distributed.DistBackendError(text)
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("error: another rank has ended")


@pytest.mark.parametrize(
    ("error", "ends"), [(OSError("No space left"), True), (Interrupted(15, 3), False)]
)
def test_an_error_of_its_own_ends_the_ranks_that_a_process_has_started(error, ends, monkeypatch):
    monkeypatch.setattr(ranks, "GRACE", 0.1)
    stuck = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    launcher = _SubprocessScriptLauncher(None, 2, 1)
    launcher.procs = [stuck]
    start = time.monotonic()
    run = SimpleNamespace(strategy=SimpleNamespace(launcher=launcher))
    EndRanks().on_exception(run, None, error)
    assert time.monotonic() - start < 10
    if ends:
        assert stuck.wait(10) < 0
    else:
        assert stuck.poll() is None
        stuck.kill()
        stuck.wait()


def test_the_cpu_is_taken_without_a_word_where_there_is_a_gpu(monkeypatch, tmp_path):
    monkeypatch.setattr(CUDAAccelerator, "is_available", lambda: True)
    Trainer(accelerator="cpu", logger=False, default_root_dir=tmp_path)
