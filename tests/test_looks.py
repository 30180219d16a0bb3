"""Integers on a device are looked at seldom; "meta" is one where they cannot be looked at."""

from __future__ import annotations

import pytest
import torch

from models.kernels import looks


@pytest.fixture
def looked_at(monkeypatch):
    found, look = [], looks._look

    def counted(values):
        found.append(values)
        return look(values) if values.device.type == "cpu" else (0, 9)

    monkeypatch.setattr(looks, "_look", counted)
    return found


def on_device(size=3):
    return torch.empty(size, dtype=torch.int64, device="meta")


def test_on_a_cpu_every_call_looks(looked_at):
    values = torch.tensor([4, 2, 7])
    assert looks.extremes(values) == looks.extremes(values) == (2, 7)
    assert looks.extremes(values[:0]) == ()
    assert len(looked_at) == 3


def test_on_a_device_each_state_is_looked_at_once(looked_at):
    values = on_device()
    assert looks.extremes(values) == looks.extremes(values.view(1, 3)) == (0, 9)
    assert len(looked_at) == 1
    values += 1
    looks.extremes(values)
    looks.extremes(values)
    assert len(looked_at) == 2
    looks.extremes(values[1:])
    looks.extremes(on_device())
    assert len(looked_at) == 4


def test_what_was_looked_at_before_it_moved_is_not_looked_at_again(looked_at):
    here, there = torch.tensor([4, 2, 7]), on_device()
    looks.follow(there, here)
    assert looks.extremes(there) == looks.extremes(there.reshape(1, -1)) == (2, 7)
    assert looked_at == [here]
    there[0] = 100
    assert looks.extremes(there) == (0, 9)


def test_nothing_is_kept_of_tensors_that_are_gone(looked_at):
    before = len(looks._known)
    looks.extremes(on_device())
    looked_at.clear()
    assert len(looks._known) == before


def test_what_torch_does_not_count_is_always_looked_at(looked_at):
    with torch.inference_mode():
        values = on_device()
        looks.follow(values, torch.tensor([1]))
        looks.extremes(values)
        looks.extremes(values)
    assert [tensor.device.type for tensor in looked_at] == ["meta", "meta"]
