"""What others leave in the environment does not stop a program."""

from __future__ import annotations

import pytest
from helpers import python

ANSWER = """
import project, torch
from models.lenet import LeNet5
model = LeNet5(backend="cpu")
print(tuple(model(torch.zeros(1, 1, 28, 28)).shape))
"""


@pytest.mark.slow
def test_kernels_compile_where_a_debugger_turned_numba_off():
    done = python("-c", ANSWER, NUMBA_DISABLE_JIT="1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "(1, 10)"
