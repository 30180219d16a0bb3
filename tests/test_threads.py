"""How many threads there are is the user's to say, and Lightning's where ranks share a machine."""

from __future__ import annotations

import pytest
from helpers import python

# In a process of its own: nothing was imported there yet.
SCRIPT = """
import torch
torch.set_num_threads(1)
import {module}
assert torch.get_num_threads() == 1
from models.kernels import threads
assert threads.threads_for(100) == 1
torch.set_num_threads(2)
assert threads.threads_for(100) == 2
assert threads.threads_for(1) == 1
assert threads.threads_for(0) == 1
assert torch.get_num_threads() == 2
"""


@pytest.mark.slow
@pytest.mark.parametrize("module", ["models.kernels.conv_pool.cpu", "models.kernels.sgd.cpu"])
def test_numba_leaves_the_threads_of_torch_alone(module):
    done = python("-c", SCRIPT.format(module=module), NUMBA_NUM_THREADS="2")
    assert done.returncode == 0, done.stderr
