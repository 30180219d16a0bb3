from __future__ import annotations

import pytest

from models.kernels.table import C3_TABLE, connections, full_table


def test_c3_table_is_table_1_of_the_paper():
    assert len(C3_TABLE) == 16
    assert [len(row) for row in C3_TABLE] == [3] * 6 + [4] * 9 + [6]
    pairs = connections(C3_TABLE, 6)
    assert pairs.shape == (60, 2)
    assert pairs[:, 1].bincount().tolist() == [10] * 6


def test_full_table():
    assert connections(full_table(6, 16), 6).tolist() == [
        [o, i] for o in range(16) for i in range(6)
    ]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([], "has no output map"),
        ([[0], []], "gives output map 1 no input"),
        ([[0, 1, 0]], "repeats an input of output map 0"),
        ([[0], [1, 3]], "feeds output map 1 from input map 3, but there are only maps 0 to 2"),
        ([[-1]], "feeds output map 0 from input map -1"),
    ],
    ids=["no rows", "empty row", "repeated", "too high", "negative"],
)
def test_bad_table_is_refused_by_name(table, message):
    with pytest.raises(ValueError, match=message):
        connections(table, 3)
