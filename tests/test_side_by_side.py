"""Trainings side by side on one GPU are those of project.fit one after the other."""

from __future__ import annotations

import errno
import json
import os
from contextlib import nullcontext

import numpy as np
import pytest
import torch
import torch.distributed as dist
import yaml
from helpers import assert_same_weights, of_a_gpu

from models.learners import graph
from models.lenet import LeNet5
from project import experiments
from project.evaluate import main as evaluate
from project.reproduce import side_by_side, trainings
from project.reproduce.ranks import own_gpu
from project.reproduce.record import Task
from project.reproduce.training import Wanted, find, train
from project.reproduce.trainings import train_all

GPU = torch.cuda.is_available()
DEVICE = own_gpu() or torch.device("cpu")
PLAIN = {"c3": "original"}
FAST = {"c3": "modern", "momentum": 0.9, "nesterov": True, "schedule": "one-cycle", "lr": 0.2}


@pytest.fixture
def configure(tmp_path, monkeypatch, recordings):
    """Writes a configuration of two epochs of 130 images, in mini-batches of 9 and one of 4.

    Without a GPU, recordings are calls, and there are no streams.
    """
    folder = tmp_path / "configs"
    folder.mkdir()
    monkeypatch.setattr(experiments, "CONFIGS", folder)
    if not GPU:
        experiment = of_a_gpu(LeNet5), experiments.EXPERIMENTS["lenet5"][1]
        monkeypatch.setitem(experiments.EXPERIMENTS, "lenet5", experiment)
        monkeypatch.setattr(side_by_side, "own_stream", lambda device: nullcontext)

    def write(name, model, **more):
        content = {
            "experiment": "lenet5",
            "seed_everything": 0,
            "model": model if GPU else {**model, "backend": "composite"},
            "data": {"batch_size": 9, "eval_batch_size": 32},
            "trainer": {"max_epochs": 2, "devices": 1},
            **more,
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))

    return write


def weights(training):
    return torch.load(training.checkpoint, map_location="cpu", weights_only=True)["state_dict"]


def assert_same(one, other):
    """Losses, test and weights, to the bit, and what else the report reads of a run."""
    assert one.losses.tobytes() == other.losses.tobytes()
    assert_same_weights(weights(one), weights(other))
    apart = {"seconds", "images_per_second"}
    records = [{k: v for k, v in t.record.items() if k not in apart} for t in (one, other)]
    assert records[0] == records[1]


def folders(tmp_path):
    for name in ("beside", "alone"):
        (tmp_path / name).mkdir()
        yield tmp_path / name


@pytest.mark.parametrize("at_once", [1, 2, 16])
def test_seeds_side_by_side_have_the_numbers_of_one_after_the_other(
    at_once, configure, tiny_root, tmp_path, monkeypatch
):
    configure("plain", PLAIN)
    configure("fast", FAST)
    beside, alone = folders(tmp_path)
    monkeypatch.setattr(side_by_side, "AT_ONCE", at_once)
    wanted = [Wanted(config, seed) for seed in (3, 4) for config in ("plain", "fast")]
    wanted.append(Wanted("fast", 4, 1))
    told = []
    done = side_by_side.train(Task(tiny_root, beside), wanted, DEVICE, told.append)
    assert done == set(wanted)
    assert told == sorted(told)
    assert told[-1] == 5
    for one in wanted:
        expected = train(Task(tiny_root, alone), one, lambda share: None)
        assert "recorded" in expected.record["learner"]
        found = find(beside, one)
        assert found.checkpoint.name == expected.checkpoint.name
        assert_same(found, expected)


def test_checkpoint_of_a_seed_says_by_itself_what_it_is(
    configure, tiny, tiny_root, tmp_path, capsys
):
    configure("fast", FAST)
    one = Wanted("fast", 7, 1)
    side_by_side.train(Task(tiny_root, tmp_path), [one], DEVICE, lambda share: None)
    found = find(tmp_path, one)
    net = LeNet5.load_from_checkpoint(found.checkpoint, map_location="cpu", weights_only=True)
    assert (net.hparams["c3"], net.hparams["momentum"]) == ("modern", 0.9)
    evaluate([f"--ckpt_path={found.checkpoint}", "--json=test.json"])
    assert one.name in capsys.readouterr().out
    assert json.loads((tiny / "test.json").read_text())["test"] == found.record["test"]
    content = experiments.read_checkpoint(found.checkpoint)
    assert not content.continues
    assert content.iterations == len(found.losses)


@pytest.fixture
def one_gpu(monkeypatch):
    """A report with a GPU; gives the names of what trains in processes."""
    rest = []
    monkeypatch.setattr(trainings, "own_gpu", lambda: DEVICE)
    monkeypatch.setattr(
        trainings, "_train_in_processes", lambda task, some, progress: rest.extend(some)
    )
    return rest


def test_report_goes_on_behind_the_seeds_that_are_finished(
    configure, tiny_root, tmp_path, one_gpu, monkeypatch
):
    configure("plain", PLAIN)
    wanted = [Wanted("plain", seed) for seed in range(4)]
    monkeypatch.setattr(side_by_side, "AT_ONCE", 2)

    def stop(share):
        if share > 0.6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_all(Task(tiny_root, tmp_path, progress=stop), wanted, timed=0)
    assert [find(tmp_path, one) is not None for one in wanted] == [True, True, False, False]
    trained = []
    take = side_by_side.Lane.train
    monkeypatch.setattr(
        side_by_side.Lane,
        "train",
        lambda lane, one, *rest: trained.append(one) or take(lane, one, *rest),
    )
    found = train_all(Task(tiny_root, tmp_path), wanted, timed=0)
    assert trained == wanted[2:]
    assert list(found) == wanted
    assert len({training.losses.tobytes() for training in found.values()}) == 4
    assert not one_gpu


@pytest.mark.parametrize(
    ("model", "more", "why"),
    [
        ({"rotation": 5}, {}, "images are distorted, or there are teachers"),
        (
            PLAIN,
            {"trainer": {"max_epochs": 2, "precision": "64-true"}},
            "the configuration has precision",
        ),
        (
            PLAIN,
            {"data": {"batch_size": 9, "val_size": 30}},
            "the data are of another kind, or some are held out for validation",
        ),
    ],
    ids=["distorted", "precision", "validation"],
)
def test_what_asks_for_more_trains_one_after_the_other(
    model, more, why, configure, tiny_root, tmp_path, one_gpu, capsys
):
    configure("plain", PLAIN)
    configure("other", model, **more)
    wanted = [Wanted("other", 0), Wanted("plain", 0), Wanted("other", 1)]
    train_all(Task(tiny_root, tmp_path), wanted, timed=0)
    assert one_gpu == [wanted[0], wanted[2]]
    assert find(tmp_path, wanted[1]) is not None
    assert capsys.readouterr().err == f"other: one training after the other, since {why}\n"


@pytest.mark.parametrize("error", [torch.cuda.OutOfMemoryError("out"), RuntimeError("no capture")])
def test_what_cannot_be_recorded_trains_one_after_the_other(
    error, configure, tiny_root, tmp_path, one_gpu, capsys, monkeypatch
):
    def record(function, device):
        raise error

    configure("plain", PLAIN)
    monkeypatch.setattr(graph, "record", record)
    wanted = [Wanted("plain", 0)]
    train_all(Task(tiny_root, tmp_path), wanted, timed=0)
    assert one_gpu == wanted
    why = f"{type(error).__name__}: {error}"
    assert capsys.readouterr().err.splitlines() == [
        f"Not using the recorded learner, so slower: {why}",
        f"plain: one training after the other, since not recorded: {why}",
    ]


def test_a_training_that_comes_to_no_number_is_left_to_who_says_so(
    configure, tiny_root, tmp_path, one_gpu, monkeypatch
):
    configure("plain", PLAIN)
    wanted = [Wanted("plain", 0), Wanted("plain", 1)]
    take = side_by_side.Lane._done

    def done(lane, one, losses, found):
        return take(lane, one, losses * np.nan if one.seed else losses, found)

    monkeypatch.setattr(side_by_side.Lane, "_done", done)
    train_all(Task(tiny_root, tmp_path), wanted, timed=0)
    assert one_gpu == wanted[1:]


def test_a_disk_that_is_full_ends_what_nobody_can_write(
    configure, tiny_root, tmp_path, monkeypatch
):
    configure("plain", PLAIN)
    monkeypatch.setattr(side_by_side, "AT_ONCE", 1)
    written = []

    def write(folder, one, done):
        written.append(one)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))

    monkeypatch.setattr(side_by_side, "_write", write)
    wanted = [Wanted("plain", seed) for seed in range(6)]
    with pytest.raises(OSError, match="No space left"):
        side_by_side.train(Task(tiny_root, tmp_path), wanted, DEVICE, lambda share: None)
    assert len(written) < len(wanted)


def test_ranks_test_their_seeds_by_themselves(configure, tiny_root, tmp_path, monkeypatch):
    """They have other seeds, and perhaps another number of them: who waited would wait for ever."""

    def wait(*args, **options):
        raise AssertionError("ranks wait for each other")

    configure("plain", PLAIN)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        for name in ("barrier", "all_gather", "all_reduce"):
            monkeypatch.setattr(dist, name, wait)
        wanted = {Wanted("plain", 0)}
        done = side_by_side.train(Task(tiny_root, tmp_path), [*wanted], DEVICE, lambda share: None)
        assert done == wanted
    finally:
        dist.destroy_process_group()


def test_ranks_of_a_machine_have_a_gpu_each(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert own_gpu() == torch.device("cuda", 0)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert own_gpu() == torch.device("cuda", 1)
