"""Vectors of either width compute the same, whichever this machine's kernels have."""

from __future__ import annotations

import sys

import pytest
from helpers import REPOSITORY, python

from models.kernels import lanes

# Before any kernel is imported: the width is frozen into them.
SCRIPT = """
import sys
import pytest
from models.kernels import lanes
lanes.LANES = {width}
sys.exit(pytest.main(sys.argv[1:]))
"""
OTHER = 8 + lanes.MOST - lanes.LANES
TESTS = {
    "of blocks": [
        "test_conv_pool.py::test_cpu_kernel_equals_the_reference",
        "test_conv_pool.py::test_tanh_of_the_kernel_is_within_2e_7_everywhere",
        "test_conv_pool.py::test_lanes_round_trip",
        "test_conv_pool_twice.py::test_two_blocks_equal_the_reference",
    ],
    "of whole nets": [
        "test_compiled_learner.py::test_losses_and_every_gradient_equal_autograd_in_float64",
        "test_compiled_learner.py::test_threads_and_repetition_do_not_matter_more_than_rounding",
        "test_lenet1998_gradient.py",
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("tests", TESTS.values(), ids=TESTS)
def test_the_other_width_passes_the_tests_of_the_kernels(tests):
    options = "-q", "--numprocesses=0", "-p", "no:cacheprovider", "-m", "not slow"
    paths = [str(REPOSITORY / "tests" / test) for test in tests]
    script = SCRIPT.format(width=OTHER)
    done = python("-c", script, *options, *paths, folder=REPOSITORY)
    assert done.returncode == 0, done.stdout + done.stderr


def test_without_a_compiler_there_are_eight(monkeypatch):
    monkeypatch.setitem(sys.modules, "llvmlite", None)
    assert lanes._lanes_here() == 8
