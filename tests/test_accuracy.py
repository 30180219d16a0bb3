"""Real digits, and floors that a broken training would miss."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from project import fit

# Seed and floor; one seed that does not collapse is enough to show that the training works.
FLOORS = {
    "lenet5-original": (["--trainer.max_epochs=1"], 0.92),
    "lenet5-modern": (["--trainer.max_epochs=1"], 0.92),
    "logistic": ([], 0.93),
    "mse": ([], 0.93),
}


@pytest.mark.parametrize("name", FLOORS)
def test_accuracy_on_the_real_test_set(name, mnist_root, workplace, monkeypatch):
    monkeypatch.setenv("MNIST_ROOT", str(mnist_root))
    options, floor = FLOORS[name]
    fit.main(["--config", name, *options])
    record = json.loads(Path(f"runs/{name}/version_0/results.json").read_text())
    assert record["test"]["total"] == (10_000 if name.startswith("lenet5") else 1_991)
    assert record["test"]["accuracy"] >= floor
