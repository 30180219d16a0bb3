from __future__ import annotations

import json
import statistics
from pathlib import Path

import numpy as np
import pytest
import torch

import models.losses
from project import fit
from project.bench.published import PUBLISHED_LOSSES
from project.reproduce import descents, table1, table1_claims, table1_printed
from project.reproduce.descents import Descent, Experiment, run_shared
from project.reproduce.table1 import COLLAPSED, Series
from project.reproduce.table1_claims import LOSSES
from project.reproduce.table1_printed import RUNS, TABLE


@pytest.mark.parametrize("name", ["logistic", "mse-tuned"])
def test_a_run_is_that_of_project_fit(name, tiny_root, workplace, monkeypatch):
    monkeypatch.setenv("MNIST_ROOT", str(tiny_root))
    fit.main(["--config", name, "--seed_everything", "3", "--figures=none"])
    record = json.loads(Path(f"runs/{name}/version_0/results.json").read_text())
    (descent,) = Experiment(name, tiny_root).run([3])
    assert descent.correct == record["test"]["correct"]


def test_runs_do_not_depend_on_their_neighbours(tiny_root, monkeypatch):
    experiment = Experiment("mse", tiny_root)
    together = run_shared(experiment, range(5), lambda share: None)
    monkeypatch.setitem(descents.AT_ONCE, experiment.device.type, 2)
    assert run_shared(experiment, range(5), lambda share: None) == together


@pytest.mark.parametrize(("version", "device"), [("cuda", "cuda:1"), ("cpu", "cpu")])
def test_runs_take_a_gpu_whose_kernel_gives_right_numbers(version, device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(descents.sgd, "choose", lambda *_: version)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert str(descents.device_of_runs()) == device
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert str(descents.device_of_runs()) == "cpu"


def test_collapse_is_counted_and_told():
    learnt, lost = Descent(0, 1.0, 95, 40_000), Descent(1, -2.0, 49, 700)
    runs = [learnt, lost]
    found = {name: Series(runs, 100, [0.01, 0.03], "cpu") for name in table1.NAMES}
    text = table1._text(found)
    assert "50% of its runs collapse" in text
    assert "after 700 iterations" in text
    assert "logistic,1,49,100,0.490000,-2.0000,1" in table1._csv(found)
    table = table1._markdown(found)
    assert "| seed 0 | 95.00% | 0.010 |" in table
    assert "| mean | 72.00% | 0.020 |" in table
    assert "| deviation | 23.00% | 0.010 |" in table


@pytest.mark.parametrize("column", TABLE.values(), ids=lambda column: column.title)
def test_printed_averages_and_deviations_follow_from_the_printed_runs(column):
    for i, values in enumerate((column.accuracies, column.seconds)):
        assert len(values) == RUNS
        assert table1_printed.follows(column.averages[i], statistics.fmean(values))
        assert table1_printed.follows(column.deviations[i], statistics.pstdev(values))
        # Those of a sample would be others.
        assert not table1_printed.follows(column.deviations[i], statistics.stdev(values))


def test_table_is_told_row_by_row_beside_the_first_runs():
    rows = table1_printed.rows(["seed 0: 95 %"])
    assert [row.measured for row in rows[:2]] == ["seed 0: 95 %", ""]
    assert rows[4].published == "D_KL 96.84 % in 2.8 s, MSE 88.15 % in 6.4 s"
    assert [row.measured for row in rows[5:]] == ["follow from the rows"] * 2


def test_claims_of_the_table_are_judged_by_all_runs():
    logistic, mse = np.tile([0.94, 0.96], 10), np.tile([0.97, 0.5], 10)
    better = table1_claims.accuracy(logistic, mse, mse < COLLAPSED).measured
    assert better.startswith("holds: 95.00 to 73.50 %, by 21.50 points, by -2.00 without its")
    assert better.endswith("seen in 4 of 4 tables of five runs")
    assert table1_claims.stability(mse, logistic, mse < 0).measured.startswith(
        "does not hold: 23.5"
    )


def test_squares_are_a_part_of_what_squared_error_costs_and_not_the_most():
    count = {name: table1_claims.operations(loss) for name, loss in LOSSES.items()}
    assert count == {
        "D_KL": 4,
        "MSE": 18,
        "without squares": 14,
        "without sigmoids": 14,
        "with neither": 10,
    }
    # Of the difference from D_KL most is there without them.
    assert count["without squares"] - count["D_KL"] > (count["MSE"] - count["D_KL"]) / 2


@pytest.mark.parametrize("label", [-1.0, 1.0])
def test_losses_that_are_timed_are_the_published_ones(label):
    z, y = torch.linspace(-3, 3, 7), torch.full((7,), label)
    torch.testing.assert_close(LOSSES["MSE"](z, y), PUBLISHED_LOSSES["mse"](z, y))
    torch.testing.assert_close(LOSSES["MSE"](z, y), models.losses.LOSSES["mse"](z, y).sum())


def test_missing_square_is_computed_and_does_not_betray_itself_in_the_table():
    z, y = torch.zeros(1), torch.tensor([-1])
    values = [models.losses.LOSSES[name](z, y).item() for name in ("mse-as-printed", "mse")]
    assert values == [0.75, 0.5]
    evidence = table1_claims.missing_square(0.45, 0.37).evidence
    assert evidence.startswith("at z = 0: 0.75, not 0.5. 45% of the runs")
    assert "chances of 5% and 10%" in evidence
