"""The parts of the report.

Part NAME is the module `project.reproduce.NAME` with a function `run(task: Task) -> Outcome`. It is
imported when it runs: a report whose parts are finished is written without loading torch.
"""

from __future__ import annotations

from typing import NamedTuple


class Effort(NamedTuple):
    """The default number of runs of a part, and their time."""

    seconds: float
    """Approximate seconds of one run on two cores, for the progress bar only."""
    runs: int = 1


class Part(NamedTuple):
    """One part of the report."""

    name: str
    problem: int
    title: str
    full: Effort
    quick: Effort | None = None
    """With --quick; None for a part that has nothing to repeat or to shorten."""
    named: Effort | None = None
    """When the part is asked for by name; None if that is as in `full`."""
    is_shared: bool = False
    """Whether ranks share its runs: those above 0 call the module's `run_own_part(task)`."""

    def effort(self, *, quick: bool, named: bool) -> Effort:
        """Returns the default of a full report, of a quick one, or of this part by name."""
        if quick and self.quick:
            return self.quick
        return self.named if named and self.named else self.full


PARTS = (
    Part("differences", 1, "Differences of neighbours are convolutions", Effort(1)),
    Part("mean", 2, "Average pooling is a convolution", Effort(1)),
    Part("bottleneck", 3, "1x1 convolutions: luma, and a tenth of the multiplications", Effort(1)),
    Part("activation", 4, "Which activations commute with pooling", Effort(1)),
    Part(
        "table1",
        5,
        "4 against 9: logistic loss and squared error",
        full=Effort(0.06, runs=300),
        quick=Effort(0.06, runs=50),
        named=Effort(0.06, runs=5),  # as many as the document made
        is_shared=True,
    ),
    Part("jacobians", 6, "The derivatives of a perceptron", Effort(3)),
    Part(
        "lenet",
        7,
        "LeNet-5, original and modern",
        full=Effort(25, runs=5),
        quick=Effort(10),
        is_shared=True,
    ),
)

# The problems of the document.
PROBLEMS = {
    1: "Difference filters",
    2: "Mean filter",
    3: "1x1 convolutions",
    4: "Activation and pooling",
    5: "Table 1: 4 against 9, logistic and squared error",
    6: "Derivatives of a perceptron",
    7: "LeNet-5",
}
