"""The parts of the report.

Part NAME is the module `project.reproduce.NAME` with a function `run(task: Task) -> Outcome`. It is
imported when it runs: a report whose parts are finished is written without loading torch.
"""

from __future__ import annotations

from typing import NamedTuple


class Effort(NamedTuple):
    """How much a part does by default."""

    seconds: float
    """About, of one run on two cores: only the progress bar reads it."""
    runs: int = 1


class Part(NamedTuple):
    """One part of the report."""

    name: str
    problem: int
    title: str
    full: Effort
    quick: Effort | None = None
    """With --quick; None for a part that has nothing to repeat or to shorten."""

    def effort(self, *, quick: bool) -> Effort:
        """The default of a full or of a quick report."""
        return self.quick if quick and self.quick else self.full


PARTS = (
    Part("differences", 1, "Differences of neighbours are convolutions", Effort(1)),
    Part("mean", 2, "Average pooling is a convolution", Effort(1)),
    Part("bottleneck", 3, "1x1 convolutions: luma, and a tenth of the multiplications", Effort(1)),
    Part("activation", 4, "Which activations commute with pooling", Effort(1)),
    Part("jacobians", 6, "The derivatives of a perceptron", Effort(3)),
    Part("lenet", 7, "LeNet-5, original and modern", Effort(65, runs=5), Effort(10)),
)

# Of the document; one without a part stands in the report without a verdict.
PROBLEMS = {
    1: "Difference filters",
    2: "Mean filter",
    3: "1x1 convolutions",
    4: "Activation and pooling",
    5: "Table 1: 4 against 9, logistic and squared error",
    6: "Derivatives of a perceptron",
    7: "LeNet-5",
}
