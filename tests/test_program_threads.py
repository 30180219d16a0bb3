"""The default number of threads is what a container may run at once; the user's word goes first."""

from __future__ import annotations

import os

import pytest
import torch
from helpers import threads_of_torch

from project import threads

V2 = "0::/job/task\n"
V1 = "9:name=systemd:/\n4:cpu,cpuacct:/docker/0123\n0::/\n"


def quota(tmp_path, own, files):
    """What those files under /sys/fs/cgroup amount to."""
    for name, text in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "own").write_text(own)
    return threads.cpu_quota(tmp_path / "cgroup", tmp_path / "own")


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        (V2, {"job/task/cpu.max": "150000 100000\n"}, 1.5),
        (V2, {"job/task/cpu.max": "max 100000\n"}, None),
        (V2, {"job/task/cpu.max": "max 100000\n", "job/cpu.max": "50000 100000\n"}, 0.5),
        (V2, {"job/task/cpu.max": "200000 100000\n", "job/cpu.max": "300000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "400000 100000\n"}, 4),
        ("0::/\n", {"cpu.max": "rubbish\n"}, None),
        ("0::/\n", {}, None),
        (V1, {"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        (V1, {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
    ],
)
def test_quota_is_the_least_of_all_cgroups_around(own, files, expected, tmp_path):
    assert quota(tmp_path, own, files) == expected


def test_without_cgroups_there_is_none(tmp_path):
    assert threads.cpu_quota(tmp_path, tmp_path / "missing") is None


@pytest.mark.parametrize(
    ("quota", "ranks", "said", "expected"),
    [
        (2.0, 1, None, 2),
        (1.5, 1, None, 2),
        (0.5, 1, None, 1),
        (64.0, 1, None, 4),
        (None, 1, None, 4),
        (2.0, 2, None, 1),
        (1.0, 3, None, 1),
        (1.0, 1, "4", 4),
    ],
)
def test_no_more_threads_than_the_quota_unless_the_user_says_so(
    quota, ranks, said, expected, monkeypatch
):
    monkeypatch.setattr(threads, "cpu_quota", lambda: quota)
    monkeypatch.setattr(os, "environ", {} if said is None else {"OMP_NUM_THREADS": said})
    with threads_of_torch(4):
        threads.limit_threads(ranks)
        assert torch.get_num_threads() == expected
    assert os.environ.get("OMP_NUM_THREADS") == (str(expected) if ranks > 1 else said)
