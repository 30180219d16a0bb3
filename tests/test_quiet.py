"""What Lightning says of itself is said nowhere, whoever listens."""

from __future__ import annotations

import logging

from lightning.pytorch.utilities.rank_zero import rank_zero_info

from project.quiet import quieten


def test_chatter_does_not_reach_the_handlers_of_a_notebook(caplog):
    quieten()
    with caplog.at_level(logging.INFO):
        rank_zero_info("GPU available: False, used: False")
        rank_zero_info("Profile of what was asked for")
    assert [record.getMessage() for record in caplog.records] == ["Profile of what was asked for"]
