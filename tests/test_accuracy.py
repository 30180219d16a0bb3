"""Real digits, and floors that a broken training would miss."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from project import fit

# Options, seeds and floor. On raw pixels a run is chaotic, so that which seeds end badly depends on
# the processor; one of five that does not is enough to show that the training works.
FLOORS = {
    "lenet5-original": (["--trainer.max_epochs=1"], [0], 0.92),
    "lenet5-modern": (["--trainer.max_epochs=1"], [0], 0.92),
    "logistic": (["--figures=none"], range(5), 0.93),
    "mse": (["--figures=none"], range(5), 0.93),
}


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in FLOORS if name != "logistic"]


@pytest.mark.parametrize("name", ["logistic", *SLOW])
def test_accuracy_on_the_real_test_set(name, mnist_root, workplace, monkeypatch):
    monkeypatch.setenv("MNIST_ROOT", str(mnist_root))
    options, seeds, floor = FLOORS[name]
    accuracies = []
    for version, seed in enumerate(seeds):
        fit.main(["--config", name, f"--seed_everything={seed}", *options])
        record = json.loads(Path(f"runs/{name}/version_{version}/results.json").read_text())
        assert record["test"]["total"] == (10_000 if name.startswith("lenet5") else 1_991)
        accuracies.append(record["test"]["accuracy"])
    assert max(accuracies) >= floor
