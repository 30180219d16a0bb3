"""Many trainings of the report, side by side and shared out over ranks."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch.distributed as dist

from project.reproduce import trainings
from project.reproduce.record import Task
from project.reproduce.training import Training, Wanted, find, train
from project.reproduce.trainings import train_all

DONE = Training({}, np.zeros(1, np.float32), Path())


@pytest.mark.slow
def test_a_training_in_a_process_of_its_own_is_that_of_this_one(mnist_root, tmp_path, monkeypatch):
    monkeypatch.setattr(trainings, "own_gpu", lambda: None)
    task, one = Task(mnist_root, tmp_path), Wanted("lenet5-original", seed=3, epochs=1)
    here = train(task, one, lambda share: None)
    shares = []
    task = Task(mnist_root, tmp_path, seed=3, force=True, progress=shares.append)
    (there,) = train_all(task, [one], timed=0).values()
    assert there.checkpoint != here.checkpoint
    assert there.losses.tobytes() == here.losses.tobytes()
    assert there.record["test"] == here.record["test"]
    assert shares == [1]


def test_memory_of_a_training_in_a_process_of_its_own_is_free_behind_it(monkeypatch, tmp_path):
    class Cycle:
        pass

    left = []

    def trains(*_):
        cycle = Cycle()
        cycle.itself = cycle
        left.append(weakref.ref(cycle))

    monkeypatch.setattr(trainings, "train", trains)
    gc.disable()
    try:
        trainings._train_alone(Task(tmp_path, tmp_path), Wanted("lenet5-original", 0))
        assert left[0]() is None
    finally:
        gc.unfreeze()
        gc.enable()


def wanted(seeds):
    return [Wanted(f"lenet5-{c3}", seed) for seed in seeds for c3 in ("original", "modern")]


@pytest.fixture
def trained(monkeypatch):
    """What is trained: alone, and side by side."""
    alone, side_by_side = [], []
    monkeypatch.setattr(trainings, "find", lambda folder, one: DONE if one in done() else None)
    monkeypatch.setattr(trainings, "train", lambda task, one, progress: alone.append(one))
    monkeypatch.setattr(
        trainings, "_train_side_by_side", lambda task, some, progress: side_by_side.extend(some)
    )

    def done():
        return [*alone, *side_by_side]

    return alone, side_by_side


def test_first_seeds_train_alone_and_nothing_twice(trained, tmp_path):
    alone, side_by_side = trained
    task = Task(tmp_path, tmp_path, seed=7)
    train_all(task, wanted(range(7, 9)), timed=5)
    assert (alone, side_by_side) == (wanted(range(7, 9)), [])
    assert list(train_all(task, wanted(range(7, 17)), timed=5)) == wanted(range(7, 17))
    assert (alone, side_by_side) == (wanted(range(7, 12)), wanted(range(12, 17)))


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_share_the_seeds_and_all_have_them(trained, ranks, tmp_path, monkeypatch):
    alone, side_by_side = trained
    parts = []
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: ranks)
    monkeypatch.setattr(dist, "all_gather_object", lambda every, own: parts.append(own))
    task = Task(tmp_path, tmp_path)
    for rank in range(ranks):
        monkeypatch.setattr(dist, "get_rank", lambda rank=rank: rank)
        with pytest.raises(AttributeError):  # nothing came of the other ranks
            train_all(task, wanted(range(5)), timed=5)
    assert [seed for part in parts for seed in {one.seed for one in part}] == sorted(
        range(5), key=lambda seed: seed % ranks
    )
    assert not alone
    assert sorted(side_by_side) == sorted(wanted(range(5)))

    def all_gather(every, own):
        every[:] = parts

    monkeypatch.setattr(dist, "all_gather_object", all_gather)
    assert train_all(task, wanted(range(5)), timed=5).keys() == set(wanted(range(5)))


def test_progress_is_told_block_by_block(tiny_root, workplace, capsys):
    shares = []
    train(Task(tiny_root, workplace), Wanted("lenet5-original", seed=0, epochs=3), shares.append)
    assert shares == [1 / 3, 2 / 3, 1]
    assert "Blocks of 1" not in capsys.readouterr().err


def test_another_length_or_seed_is_another_run():
    names = {
        Wanted("lenet5-original", seed, epochs).name for seed in (0, 1) for epochs in (None, 1, 10)
    }
    assert len(names) == 6
    assert Wanted("lenet5-original", 2, 10).name == "lenet5-original-10-epochs-seed-2"


def test_nothing_is_found_in_an_empty_folder(tmp_path):
    assert find(tmp_path, Wanted("lenet5-original", 0)) is None
