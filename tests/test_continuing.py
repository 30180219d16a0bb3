"""A training that is killed, stopped, broken off, extended any number of times is the same one."""

from __future__ import annotations

import os

import continued
import pytest
from continued import Piece, difference
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.filterwarnings("ignore")

SEQUENCES = int(os.environ.get("SEQUENCES", "20"))


@st.composite
def trainings(draw):
    """An experiment, and the pieces that it is trained in."""
    experiment = draw(st.sampled_from(sorted(continued.EXPERIMENTS)))
    piece = st.builds(
        Piece,
        end=st.sampled_from(continued.ends(experiment)),
        hook=st.sampled_from(continued.HOOKS),
        count=st.integers(1, 6),
        block_size=st.sampled_from(continued.BLOCK_SIZES),
        every=st.sampled_from(continued.EVERY),
    )
    return experiment, draw(st.lists(piece, min_size=1, max_size=6))


@settings(
    max_examples=SEQUENCES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(trainings())
def test_pieces_of_a_training_make_the_whole(tiny_root, workplace, training):
    assert not difference(*training, tiny_root)
