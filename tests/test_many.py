"""Several ranks, several hosts, and ranks and processes that are killed."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import REPOSITORY, assert_same_weights, free_port, python

pytestmark = pytest.mark.slow

ITERATIONS = 300
COMMON = ["--trainer.accelerator=cpu", f"--trainer.max_steps={ITERATIONS}", "--figures=none"]


def environment(mnist_root):
    """One thread for each rank: more would only wait for each other."""
    return {"MNIST_ROOT": str(mnist_root), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def fit(nursery, folder, mnist_root):
    """Runs project.fit, on several ranks where there are some."""

    def run(*options, ranks=1):
        how = {"folder": folder, **environment(mnist_root)}
        if ranks == 1:
            nursery.run(*COMMON, *options, **how)
        else:
            nursery.ranks(ranks, *COMMON, *options, f"--trainer.devices={ranks}", **how)

    return run


def outcome(folder, name):
    """Record, losses and weights of a run."""
    place = folder / "runs" / name / "version_0"
    newest = max((place / "checkpoints").glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    weights = torch.load(newest, weights_only=True)["state_dict"]
    record = json.loads((place / "results.json").read_text())
    return record, np.load(place / "losses.npy"), weights


def assert_same(one, other):
    """Bit for bit."""
    np.testing.assert_array_equal(one[1], other[1])
    assert one[0]["test"] == other[0]["test"]
    assert_same_weights(one[2], other[2])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("many")


def test_ranks_do_not_change_the_curve(fit, folder, mnist_root):
    """Two that Lightning starts, and four that something else does."""
    validated = ["--data.val_size=1111"]
    fit("--name=1", *validated)
    two = ["--trainer.devices=2", "--trainer.strategy=ddp", "--name=2"]
    done = python(
        "-m", "project.fit", *COMMON, *validated, *two, folder=folder, **environment(mnist_root)
    )
    assert done.returncode == 0, done.stderr
    fit("--name=4", *validated, ranks=4)
    one, *several = (outcome(folder, name) for name in "124")
    for ranks, (record, losses, _) in zip((2, 4), several, strict=True):
        assert len(losses) == ITERATIONS
        np.testing.assert_allclose(losses, one[1], rtol=1e-4)
        assert record["world_size"] == ranks
        assert record["test"]["total"] == np.sum(record["test"]["confusion"]) == 10_000
        assert abs(record["test"]["correct"] - one[0]["test"]["correct"]) <= 2
        assert not (folder / f"runs/{ranks}/version_1").exists(), "one rank writes"


@pytest.mark.parametrize("config", ["lenet5-original-tuned", "lenet5-1998"])
def test_ranks_change_neither_momentum_nor_distortion(config, fit, folder):
    options = [f"--config={config}", "--trainer.max_steps=60", "--data.batch_size=50"]
    options += ["--trainer.limit_train_batches=30"]  # so that a second epoch begins
    fit(f"--name={config}", *options)
    fit(f"--name={config}3", *options, ranks=3)
    one, three = (outcome(folder, name) for name in (config, f"{config}3"))
    assert one[0]["learner"] == three[0]["learner"] == "compiled"
    np.testing.assert_allclose(three[1], one[1], rtol=1e-4)


@pytest.mark.parametrize("config", ["lenet5-original-tuned"])
def test_ranks_do_not_change_the_curve_in_float64(config, fit, folder):
    exact = [f"--config={config}", "--trainer.max_steps=40", "--trainer.precision=64"]
    exact += ["--model.backend=composite", "--data.batch_size=50"]
    names = f"exact-{config}", f"exact3-{config}"
    fit(f"--name={names[0]}", *exact)
    fit(f"--name={names[1]}", *exact, ranks=3)
    first, second = (outcome(folder, name) for name in names)
    # What is written of a loss is float32; the weights are float64.
    np.testing.assert_allclose(second[1], first[1], rtol=1e-6)
    for name, weight in first[2].items():
        assert weight.dtype == torch.float64
        torch.testing.assert_close(second[2][name], weight, rtol=1e-10, atol=1e-12)


def test_linear_totals_are_exact_on_several_ranks(fit, folder):
    options = ["--config=logistic-tuned", "--data.batch_size=10", "--trainer.max_steps=50"]
    fit(*options, ranks=3)
    assert outcome(folder, "logistic-tuned")[0]["test"]["total"] == 1991


def workers(agent):
    """The processes that a torchrun has started, oldest first."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(entry.read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError):
            continue
        if parent == agent:
            found.append(int(entry.parent.name))
    return sorted(found)


def launch(command, folder, mnist_root):
    return subprocess.Popen(
        command,
        cwd=folder,
        env=os.environ
        | {"PYTHONPATH": str(REPOSITORY), "PYTHONFAULTHANDLER": "1"}
        | environment(mnist_root),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(*agents):
    """What each torchrun has printed; of one that hangs, where its ranks are too."""
    deadline = time.time() + 200
    while time.time() < deadline and None in [agent.poll() for agent in agents]:
        time.sleep(0.1)
    hanging = [agent for agent in agents if agent.poll() is None]
    for agent in hanging:
        for worker in workers(agent.pid):
            os.kill(worker, signal.SIGABRT)  # Python then writes down its stack
    time.sleep(5 * bool(hanging))
    for agent in hanging:
        agent.kill()
    texts = [agent.communicate()[0] for agent in agents]
    assert not hanging, texts
    assert [agent.returncode for agent in agents] == [0] * len(agents), texts
    return texts


def torchrun(folder, mnist_root, *words):
    """A job of project.fit; the words of torchrun stand before "-m"."""
    split = words.index("-m")
    command = [sys.executable, "-m", "torch.distributed.run", *words[:split]]
    command += ["-m", "project.fit", *COMMON]
    return launch([*command, *words[split + 1 :]], folder, mnist_root)


def kill_after_a_checkpoint(rank, agents, checkpoints):
    """Takes one of the ranks, by the order of their agents and of their start."""
    while None in [agent.poll() for agent in agents] and not list(checkpoints.glob("*.ckpt")):
        time.sleep(0.02)
    os.kill([worker for agent in agents for worker in workers(agent.pid)][rank], signal.SIGKILL)


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds ranks in /proc")


@pytest.fixture
def undisturbed(fit, folder):
    if not (folder / "runs/undisturbed").exists():
        fit("--name=undisturbed", ranks=2)
    return outcome(folder, "undisturbed")


@needs_proc
@pytest.mark.parametrize(("words", "rank"), [(["--standalone"], 1)])
def test_torchrun_ends_a_job_that_lost_a_rank(words, rank, undisturbed, folder, mnist_root):
    name = f"bereft-{rank}{''.join(words)}"
    words = [*words, "--nproc-per-node=2", "--max-restarts=1", "-m", "--checkpoint_every=40"]
    job = torchrun(folder, mnist_root, *words, f"--name={name}")
    kill_after_a_checkpoint(rank, [job], folder / f"runs/{name}/version_0/checkpoints")
    (text,) = finish(job)
    assert f"from runs/{name}/version_0/checkpoints" in text
    assert_same(undisturbed, outcome(folder, name))
    assert not (folder / f"runs/{name}/version_1").exists()


def two_hosts(folder, mnist_root, *words):
    """Two agents at two addresses of this machine, as one would start them on two machines."""
    meeting = ["--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{free_port()}", "--rdzv-id=job"]
    agents = []
    for host in (0, 1):
        place = [f"--rdzv-conf=is_host={1 - host}", f"--local-addr=127.0.0.{host + 1}"]
        command = ["--nnodes=2", "--nproc-per-node=1", *meeting, *place, *words]
        agents.append(torchrun(folder, mnist_root, *command))
    return agents


@needs_proc
def test_two_hosts_go_on_together_and_leave_one_result(undisturbed, folder, mnist_root):
    """The agent that lost no rank may not count the start that follows."""
    options = ["--max-restarts=1", "-m", "--name=hosts", "--checkpoint_every=40"]
    agents = two_hosts(folder, mnist_root, *options)
    kill_after_a_checkpoint(1, agents, folder / "runs/hosts/version_0/checkpoints")
    texts = finish(*agents)
    assert sorted("test accuracy" in text for text in texts) == [False, True]
    assert "from runs/hosts/version_0/checkpoints" in "".join(texts)
    both = outcome(folder, "hosts")
    assert both[0]["world_size"] == 2
    assert_same(undisturbed, both)
    assert [path.name for path in (folder / "runs/hosts").iterdir()] == ["version_0"]


def test_killed_ten_times_and_still_the_same(fit, nursery, folder, mnist_root):
    """Half of the kills at random moments, half while a checkpoint is being written."""
    options = ["--trainer.max_steps=3000", "--data.batch_size=20", "--checkpoint_every=20"]
    fit("--name=unkilled", *options)
    place = folder / "runs/killed/version_0"
    rng = random.Random(0)

    def start(*words):
        how = {"folder": folder, **environment(mnist_root)}
        return nursery.start("--name=killed", *words, **how)

    def change(path):
        with contextlib.suppress(FileNotFoundError):  # the third newest checkpoint is deleted
            return path.stat().st_mtime
        return 0

    def has_trained_since(moment):
        return change(place / "losses.npy") > moment

    def has_saved_since(moment):
        return any(change(path) > moment for path in place.glob("checkpoints/*.ckpt"))

    def has_ended():
        return time.time() > begun + 120 or run.poll() is not None

    for kill in range(10):
        if list(place.rglob("*.ckpt")):
            words = ["--ckpt_path=last"]
        else:  # nothing to go on from: a new run, in the place of that one
            shutil.rmtree(place.parent, ignore_errors=True)
            words = [*COMMON, *options]
        begun = time.time()
        run = start(*words)
        while not has_trained_since(begun):
            assert not has_ended(), "it was already done"
            time.sleep(0.002)
        if kill % 2:  # some way on, or no checkpoint would ever be whole
            while not (has_saved_since(begun) and list(place.glob("checkpoints/*.tmp"))):
                assert not has_ended(), "it was already done"
        else:
            time.sleep(rng.uniform(0, 0.2))
        os.kill(run.pid, signal.SIGKILL)
        assert run.wait().returncode == -signal.SIGKILL, "it was already done"
    done = start("--ckpt_path=last").wait()
    assert done.returncode == 0, done.stderr
    assert_same(outcome(folder, "unkilled"), outcome(folder, "killed"))
    assert not list(place.rglob("*.tmp"))
