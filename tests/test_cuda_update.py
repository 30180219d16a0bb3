"""A step of all parameters on CUDA: on a GPU where there is one, else in Triton's interpreter."""

from __future__ import annotations

import sys

import pytest
import torch
from helpers import REPOSITORY, python

# The switch is read when Triton is imported, which other tests may have done: hence a process.
STEP = """
import torch
from models.kernels.lenet5 import cuda_update
from models.kernels.update import Update

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
for seed, update in enumerate((Update(), Update(0.9), Update(0.9, True), Update(0.5, True, 1e-3))):
    torch.manual_seed(seed)
    shapes = [(3, 5, 5), (2,), (41, 30), (1,)]  # 1230 are no whole tiles
    weights = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    parameters = [weight.clone().requires_grad_() for weight in weights]
    optimizer = torch.optim.SGD(parameters, lr=1, **update._asdict())
    ours = [weight.float().to(DEVICE) for weight in weights]
    velocities = [torch.zeros_like(weight) for weight in ours] if update.momentum else []
    places = cuda_update.tiles(ours, velocities)
    rates = torch.tensor([0.5, 0.1, 0.2])
    for k in range(3):
        gradients = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
        for parameter, gradient in zip(parameters, gradients):
            parameter.grad = gradient
        optimizer.param_groups[0]["lr"] = float(rates[k])
        optimizer.step()
        row = torch.cat([gradient.flatten() for gradient in gradients]).float().to(DEVICE)
        at = torch.tensor([k], device=DEVICE)
        cuda_update.take_step(places, row, rates.to(DEVICE), at, update)
    for actual, expected in zip(ours, parameters):
        torch.testing.assert_close(actual.cpu().double(), expected.detach(), rtol=1e-5, atol=1e-6)
try:
    cuda_update.tiles([torch.ones(3, 4).T], [])
except ValueError as error:
    assert "contiguous" in str(error)
else:
    raise AssertionError("what is not contiguous has no row")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Triton runs on Linux")
def test_a_step_is_that_of_torch_s_sgd():
    interpret = {} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"}
    done = python("-c", STEP, PYTHONPATH=str(REPOSITORY), **interpret)
    assert done.returncode == 0, done.stderr[-3000:]
