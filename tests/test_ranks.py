"""What ranks tell each other; one that is lost ends its job, soon and with one line."""

from __future__ import annotations

import signal
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
from callbacks.interrupt import Interrupt, Interrupted
from callbacks.ranks import EndRanks, limit_waiting
from models.learners import Run
from models.ranks import told
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


def test_losses_and_signals_are_one_message():
    other = torch.zeros(3 + signal.NSIG)
    other[:3] = torch.tensor([2.0, 4.0, 6.0])
    other[3 + signal.SIGTERM] = 1
    messages = []

    def all_reduce(row):
        messages.append(row.clone())
        row += other

    run = Run(torch.device("cpu"), "32-true", 2, 8, None, is_scheduled=True, all_reduce=all_reduce)
    losses, signals = told(torch.tensor([4.0, 6.0, 8.0]), signal.SIGINT, run, None)
    assert len(messages) == 1
    assert losses.tolist() == [3, 5, 7]
    assert signals.nonzero().flatten().tolist() == [signal.SIGINT, signal.SIGTERM]


def test_one_rank_tells_nobody():
    run = Run(torch.device("cpu"), "32-true", 1, 8, None, is_scheduled=True, all_reduce=None)
    losses = torch.tensor([4.0, 6.0])
    assert told(losses, 0, run, None)[0] is losses


class TwoRanks:
    """Stands in for the Trainer of one of two; the other has received what `reduce` says."""

    world_size, global_step = 2, 7

    def __init__(self, other=0):
        self.asked = 0
        self.other = torch.tensor(other)
        self.strategy = SimpleNamespace(root_device=torch.device("cpu"), reduce=self.reduce)

    def reduce(self, mine, reduce_op):
        self.asked += 1
        return torch.maximum(mine, self.other)


def heard_after_a_block(run, outputs):
    """The exit code with which the next block does not begin; None where it does."""
    callback = Interrupt()
    model = SimpleNamespace()
    callback.on_train_start(run, model)
    try:
        callback.on_train_batch_start(run, model, None, 0)
        callback.on_train_batch_end(run, model, outputs, None, 0)
        callback.on_train_batch_start(run, model, None, 1)
    except Interrupted as stop:
        return stop.code
    finally:
        callback.teardown(run, model, "fit")
    return None


@pytest.mark.parametrize(("number", "code"), [(0, None), (signal.SIGTERM, 143)])
def test_a_signal_to_another_rank_ends_this_one_behind_the_block(number, code):
    signals = torch.zeros(signal.NSIG)
    signals[0] = signals[number] = 1
    run = TwoRanks()
    assert heard_after_a_block(run, {"signals": signals}) == code
    assert run.asked == 0


@pytest.mark.parametrize(("number", "code"), [(0, None), (signal.SIGTERM, 143)])
def test_ranks_of_a_step_of_ones_own_are_asked(number, code):
    run = TwoRanks(number)
    assert heard_after_a_block(run, {"loss": torch.zeros(())}) == code
    assert run.asked == 1


def test_a_signal_is_told_with_the_losses_that_come_next():
    callback, model, run = Interrupt(), SimpleNamespace(), TwoRanks()
    callback.on_train_start(run, model)
    assert model.received == 0
    callback.on_train_batch_start(run, model, None, 0)
    signal.raise_signal(signal.SIGTERM)
    callback.teardown(run, model, "fit")
    assert model.received == signal.SIGTERM


def test_a_signal_after_the_last_block_of_another_rank_ends_this_one_too():
    callback, run = Interrupt(), TwoRanks(signal.SIGTERM)
    with pytest.raises(Interrupted) as stop:
        callback.on_train_end(run, None)
    assert stop.value.code == 143
