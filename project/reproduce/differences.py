"""Problem 1: convolutions that subtract neighbours."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from data import source
from project.reproduce import drawing, filters
from project.reproduce.record import Outcome, Row, Task, Verdict

IMAGES = 1000
# The document's stack (2, 3, 3): centre -1, and +1 below it, or to the right of it.
PRINTED = torch.tensor(
    [
        [[0.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 1.0, 0.0]],
        [[0.0, 0.0, 0.0], [0.0, -1.0, 1.0], [0.0, 0.0, 0.0]],
    ]
)


def run(task: Task) -> Outcome:
    """Applies both filters to digits and compares with plain subtraction."""
    images, _ = source.load(task.root, train=False)
    x = images[:IMAGES].unsqueeze(1).float()  # (B, 1, 28, 28)
    rows, columns = filters.row_difference()(x), filters.column_difference()(x)
    errors = [
        (rows - (x[..., 1:, :] - x[..., :-1, :])).abs().max().item(),
        (columns - (x[..., 1:] - x[..., :-1])).abs().max().item(),
    ]
    printed = printed_errors(x, PRINTED)
    panels = [
        ("digit X", x[0, 0]),
        ("X[i+1, j] - X[i, j]", rows[0, 0]),
        ("X[i, j+1] - X[i, j]", columns[0, 0]),
    ]
    count = f"on {len(x):,} digits"
    return Outcome(
        Verdict.CONFIRMED if not any((*errors, *printed)) else Verdict.NOT_REPRODUCIBLE,
        "Both kernels do what the document says, and so do two weights without the zeros around "
        "them. Its convolution does not flip its kernel, and neither does torch's; under the "
        "definition that flips it, they would take the pixel above and the one to the left.",
        (
            Row(
                "X[i+1, j] - X[i, j]",
                "3x3, centre -1, +1 below it",
                f"largest error {printed[0]:g}, {count}; as a column (-1, 1) {errors[0]:g}",
            ),
            Row(
                "X[i, j+1] - X[i, j]",
                "3x3, centre -1, +1 to the right",
                f"largest error {printed[1]:g}, {count}; as a row (-1, 1) {errors[1]:g}",
            ),
            Row("the 3x3 example", "X_32 - X_22 = Y_22", _example()),
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


def printed_errors(x: Tensor, kernels: Tensor) -> list[float]:
    """Returns the largest errors of kernels (2, 3, 3) inside of images (B, 1, H, W)."""
    below, right = F.conv2d(x, kernels.unsqueeze(1)).unbind(1)  # (B, H - 2, W - 2)
    centre = x[:, 0, 1:-1, 1:-1]
    return [
        (below - (x[:, 0, 2:, 1:-1] - centre)).abs().max().item(),
        (right - (x[:, 0, 1:-1, 2:] - centre)).abs().max().item(),
    ]


def _example() -> str:
    """Describes X_32 - X_22 of the numbers 1 to 9, and the results of the kernels."""
    x = torch.arange(1.0, 10.0).view(1, 1, 3, 3)
    kernel = PRINTED[0].view(1, 1, 3, 3)
    as_it_is, flipped = (F.conv2d(x, k).item() for k in (kernel, kernel.flip(2, 3)))
    return (
        f"of the numbers 1 to 9: {x[0, 0, 2, 1]:g} - {x[0, 0, 1, 1]:g} = {as_it_is:g}; with the "
        f"kernel flipped {flipped:g}"
    )
