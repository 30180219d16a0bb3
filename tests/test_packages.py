"""A package that cannot be imported is done without, and one line says why."""

from __future__ import annotations

import json
import os

import pytest
from helpers import REPOSITORY, python

from models.kernels import packages
from models.kernels.conv_pool import dispatch
from models.kernels.table import C3_TABLE
from models.layers.conv_pool import ConvPool
from models.lenet import LeNet5
from models.linear import Linear
from project.doctor import kernels

# As Numba begins where NumPy is newer than it knows.
REFUSAL = 'raise ImportError("Numba needs NumPy 2.4 or less. Got NumPy 9.9.\\nSee above.")\n'
REASON = "numba cannot be imported (ImportError: Numba needs NumPy 2.4 or less. Got NumPy 9.9.)"


@pytest.fixture
def _refusing(tmp_path, monkeypatch):
    """Packages that raise when they are imported."""
    (tmp_path / "refuses.py").write_text(REFUSAL)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(packages, "PROBES", {"numba": "refuses", "triton": "refuses"})
    monkeypatch.setattr(packages, "_failures", {})


@pytest.mark.usefixtures("_refusing")
def test_nothing_compiled_is_chosen():
    layer = ConvPool(6, C3_TABLE)
    assert layer.version(layer.weight) == "composite"
    assert LeNet5().backend == "composite"
    assert Linear().backend == "reference"
    assert not list(kernels.examine([LeNet5(), Linear()]))
    with pytest.raises(ValueError, match="backend cpu cannot run: numba cannot be imported"):
        ConvPool(6, C3_TABLE, backend="cpu")
    assert dispatch.distrust(layer.weight.device) == REASON


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "learner", "options"),
    [
        ("lenet5-original", "eager", ["--trainer.max_epochs=1", "--data.batch_size=20"]),
        ("logistic", "sequential", ["--data.iterations=40"]),
    ],
)
def test_a_training_goes_on(config, learner, options, tiny, tmp_path):
    (tmp_path / "broken/numba").mkdir(parents=True)
    (tmp_path / "broken/numba/__init__.py").write_text(REFUSAL)
    paths = os.pathsep.join([str(tmp_path / "broken"), str(REPOSITORY)])
    common = ["--data.verify=false", "--figures=none", "--trainer.accelerator=cpu"]
    done = python(
        "-m", "project.fit", "--config", config, *common, *options, folder=tiny, PYTHONPATH=paths
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("Not using the ")
    assert line.endswith(f", so slower: {REASON}")
    record = json.loads((tiny / f"runs/{config}/version_0/results.json").read_text())
    assert record["learner"] == learner
