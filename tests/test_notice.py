"""Who has to wait is told for what, and not among the answers."""

from __future__ import annotations

import time

import pytest

from models.kernels import notice


@pytest.mark.parametrize(("seconds", "told"), [(0.01, "Compiling ...\n"), (60, "")])
def test_only_a_long_wait_is_told_and_beside_the_answers(seconds, told, monkeypatch, capsys):
    monkeypatch.setattr(notice, "SECONDS", seconds)
    with notice.notice_if_slow("Compiling ..."):
        time.sleep(0.2)
    assert capsys.readouterr() == ("", told)
