"""Problem 1: convolutions that subtract neighbours."""

from __future__ import annotations

from data import source
from project.reproduce import drawing, filters
from project.reproduce.record import Outcome, Row, Task, Verdict

IMAGES = 1000


def run(task: Task) -> Outcome:
    """Applies both filters to digits and compares with plain subtraction."""
    images, _ = source.load(task.root, train=False)
    x = images[:IMAGES].unsqueeze(1).float()  # (B, 1, 28, 28)
    rows, columns = filters.row_difference()(x), filters.column_difference()(x)
    row_error = (rows - (x[..., 1:, :] - x[..., :-1, :])).abs().max().item()
    column_error = (columns - (x[..., 1:] - x[..., :-1])).abs().max().item()
    panels = [
        ("digit X", x[0, 0]),
        ("X[i+1, j] - X[i, j]", rows[0, 0]),
        ("X[i, j+1] - X[i, j]", columns[0, 0]),
    ]
    limits = f"largest error on {len(x):,} digits"
    return Outcome(
        Verdict.CONFIRMED if row_error == column_error == 0 else Verdict.NOT_REPRODUCIBLE,
        "Both filters exist. torch's convolution does not flip its kernel; under the definition "
        "that flips it, the two weights change places.",
        (
            Row("X[i+1, j] - X[i, j]", "a convolution", f"column (-1, 1): {limits} {row_error:g}"),
            Row("X[i, j+1] - X[i, j]", "a convolution", f"row (-1, 1): {limits} {column_error:g}"),
        ),
        (
            drawing.save(
                drawing.pictures(panels, (-255, 255)),
                task.folder / "differences.png",
                "A test digit and its differences from row to row and from column to column; grey "
                "is 0, white positive, black negative.",
            ),
        ),
    )
