from __future__ import annotations

import json
from pathlib import Path

import pytest

from project import fit
from project.reproduce import descents, table1
from project.reproduce.descents import Descent, Experiment, run_shared
from project.reproduce.table1 import Series


@pytest.mark.parametrize("name", ["logistic", "mse-tuned"])
def test_a_run_is_that_of_project_fit(name, tiny_root, workplace, monkeypatch):
    monkeypatch.setenv("MNIST_ROOT", str(tiny_root))
    fit.main(["--config", name, "--seed_everything", "3"])
    record = json.loads(Path(f"runs/{name}/version_0/results.json").read_text())
    (descent,) = Experiment(name, tiny_root).run([3])
    assert descent.correct == record["test"]["correct"]


def test_runs_do_not_depend_on_their_neighbours(tiny_root, monkeypatch):
    experiment = Experiment("mse", tiny_root)
    together = run_shared(experiment, range(5), lambda share: None)
    monkeypatch.setattr(descents, "AT_ONCE", 2)
    assert run_shared(experiment, range(5), lambda share: None) == together


def test_collapse_is_counted_and_told():
    learnt, lost = Descent(0, 1.0, 95, 40_000), Descent(1, -2.0, 49, 700)
    found = {name: Series([learnt, lost], 100, [0.01, 0.03]) for name in table1.NAMES}
    text = table1._text(found)
    assert "50% of its runs collapse" in text
    assert "after 700 iterations" in text
    assert "logistic,1,49,100,0.490000,-2.0000,1" in table1._csv(found)
    table = table1._markdown(found)
    assert "| seed 0 | 95.00% | 0.010 |" in table
    assert "| mean | 72.00% | 0.020 |" in table
    assert "| deviation | 23.00% | 0.010 |" in table
