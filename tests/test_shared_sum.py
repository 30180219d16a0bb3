"""Sums over ranks in shared memory: numpy's, on every rank, and no hang where one is lost."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from models.learners import shared_sum
from models.learners.shared_sum import SharedSum, bytes_for, shared

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="gloo's own sum serves there")

HOLD = "import fcntl; f = open({!r}, 'r+b'); fcntl.lockf(f, fcntl.LOCK_EX, 1, 1); print(); input()"
"""Another process that is rank 1, and never adds anything"""


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "sums"
    path.write_bytes(bytes(bytes_for(4, 61)))
    return path


@pytest.fixture
def alone(tmp_path):
    dist.init_process_group(
        "gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1
    )
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_sums_are_the_same_on_every_rank_however_long_each_takes(ranks, path):
    terms = torch.randn(ranks, 200, 61)

    def work(rank):
        add_up = SharedSum(path, rank, ranks, 61, None)
        sums = terms[rank].clone()
        for row in sums:
            add_up(row)
        return sums

    with ThreadPoolExecutor(ranks) as pool:
        results = list(pool.map(work, range(ranks)))

    for result in results:
        assert torch.equal(result, terms.sum(0))


def test_a_rank_that_has_ended_is_an_error_on_the_others(path, monkeypatch):
    monkeypatch.setattr(shared_sum, "PATIENCE", 0.01)
    with pytest.raises(RuntimeError, match="closed by peer: rank 1 has ended"):
        SharedSum(path, 0, 2, 61, None)(torch.ones(61))


def test_a_rank_that_lives_is_waited_for_until_the_timeout(path, monkeypatch):
    monkeypatch.setattr(shared_sum, "PATIENCE", 0.01)
    command = [sys.executable, "-c", HOLD.format(str(path))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(RuntimeError, match="rank 1 did not come within"):
            SharedSum(path, 0, 2, 61, timedelta(seconds=0.3))(torch.ones(61))
        other.communicate(b"\n")


def test_ranks_of_one_machine_share_memory_and_leave_no_file(alone, monkeypatch):
    made = []
    new_file = shared_sum._new_file
    monkeypatch.setattr(
        shared_sum, "_new_file", lambda length: made.append(new_file(length)) or made[0]
    )

    assert isinstance(shared(dist.all_reduce, 61, None), SharedSum)
    assert not made[0].exists()


def test_ranks_of_several_machines_or_without_room_use_torchs(alone, monkeypatch):
    with monkeypatch.context() as several:
        several.setattr(shared_sum, "_machine", iter(("here", "there")).__next__)
        assert shared(dist.all_reduce, 61, None) is dist.all_reduce

    monkeypatch.setattr(shared_sum, "_new_file", lambda length: None)
    assert shared(dist.all_reduce, 61, None) is dist.all_reduce
