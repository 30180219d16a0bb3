"""The claims of problem 7 about LeNet-5, one function for each kind of figure."""

from __future__ import annotations

import csv
import io
import statistics
from typing import NamedTuple

from models import nets
from models.kernels.table import C3_TABLE
from models.nets import C3
from project.bench import published
from project.bench.loops import seconds_per_iteration
from project.bench.measure import CPU
from project.confidence import confidence_interval
from project.reproduce.record import Row, Task
from project.reproduce.training import Training

BATCH = 100
VARIANTS: tuple[C3, ...] = ("original", "modern")
PLAIN, FAST = "plain", "fast"
TIMED = 5  # number of first seeds whose seconds are stated; the others may train side by side
# Published test accuracy, approximately, and seconds of training and testing, one run each.
ACCURACY = {"original": 0.9864, "modern": 0.9871}
SECONDS = {"original": 1121, "modern": 162}
# Slices of the published loops, timed in turns, and the iterations of a slice.
SLICES, QUICK_SLICES, SLICE = 15, 5, 5
ENDS = 10  # number of a training's first and of its last losses that are averaged


class Variant(NamedTuple):
    """One LeNet-5, trained with several seeds."""

    trainings: list[Training]

    @property
    def accuracies(self) -> list[float]:
        """The test accuracy of each training."""
        return [training.record["test"]["accuracy"] for training in self.trainings]

    @property
    def timed(self) -> list[float]:
        """Seconds to train and test, of the first trainings as far as they shared no GPU."""
        stages = [training.record["seconds"] for training in self.trainings[:TIMED]]
        return [stage["train"] + stage["test"] for stage in stages if stage]

    @property
    def seconds(self) -> float | None:
        """The median of `timed`, if any: other load can slow down one or two trainings a lot."""
        return statistics.median(self.timed) if self.timed else None

    @property
    def device(self) -> str:
        """The device of the first training, from its record."""
        return str(self.trainings[0].record["device"])

    @property
    def iterations(self) -> int:
        """The number of iterations of one training."""
        return int(self.trainings[0].record["iterations"])


def accuracy(c3: C3, variant: Variant) -> Row:
    """Compares the accuracy over the seeds with the one published run."""
    ours, theirs = variant.accuracies, ACCURACY[c3]
    measured = _percent(ours[0])
    if len(ours) > 1:
        mean, deviation = 100 * statistics.fmean(ours), 100 * statistics.pstdev(ours)
        low, high = min(ours), max(ours)
        outside = max(low - theirs, theirs - high)
        images = round(outside * variant.trainings[0].record["test"]["total"])
        place = f"{images} images {'above' if theirs > high else 'below'}" if images > 0 else "in"
        measured = f"{mean:.2f} +- {deviation:.2f} %, from {_percent(low)} to {_percent(high)}: "
        measured += f"the published run is {place} this range"
    return Row(f"test accuracy, {c3}", f"about {_percent(theirs)}", measured)


def differences(variants: dict[C3, Variant]) -> list[float]:
    """Returns original less modern in points of accuracy, for each seed."""
    pairs = zip(*(variants[c3].accuracies for c3 in VARIANTS), strict=True)
    return [100 * (original - modern) for original, modern in pairs]


def paired_difference(recipe: str, variants: dict[C3, Variant]) -> list[Row]:
    """Reports original less modern over the seeds, with its interval; nothing for one seed."""
    points = differences(variants)
    if len(points) == 1:
        return []
    mean, (low, high) = statistics.fmean(points), confidence_interval(points)
    measured = f"{mean:+.3f} points over {len(points)} pairs of runs of the same seed; 95 % "
    measured += f"confidence interval from {low:+.3f} to {high:+.3f}"
    claim = f"original less modern, accuracy, {recipe} recipe, "
    claim += f"{variants['original'].iterations:,} iterations"
    return [Row(claim, "-0.07 points, one run each" * (recipe == PLAIN), measured)]


def table(recipes: dict[str, dict[C3, Variant]], first_seed: int) -> str:
    """Returns a line of CSV per run, without seconds: the same for any number of ranks."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["recipe", "c3", "seed", "correct", "total"])
    for recipe, variants in recipes.items():
        for c3, variant in variants.items():
            for seed, training in enumerate(variant.trainings, first_seed):
                test = training.record["test"]
                writer.writerow([recipe, c3, seed, test["correct"], test["total"]])
    return file.getvalue()


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def parameters(c3: C3) -> dict[str, int]:
    """Returns the number of parameters of each layer."""
    return {
        name: sum(parameter.numel() for parameter in layer.parameters())
        for name, layer in nets.LeNet5(c3).named_children()
    }


def parameter_counts() -> list[Row]:
    """Compares the parameters of C3, by hand and in the code, and of all layers."""
    original, modern = (parameters(c3) for c3 in VARIANTS)
    sizes = [len(inputs) for inputs in C3_TABLE]
    terms = [f"{sizes.count(n)} (25·{n} + 1)" for n in sorted(set(sizes))]
    by_hand = sum(25 * size + 1 for size in sizes)
    layers = ", ".join(f"{name} {count:,}" for name, count in original.items() if name != "c3")
    return [
        Row(
            "parameters of C3, original",
            "6(5·5·3+1) + 9(5·5·4+1) + 1(5·5·6+1) = 1,516",
            f"{' + '.join(terms)} = {by_hand:,} by hand, {original['c3']:,} in the code",
        ),
        Row("parameters of C3, modern", "2,416", f"{modern['c3']:,}"),
        Row("their difference", "900", f"{modern['c3'] - original['c3']:,}"),
        Row(
            "all parameters",
            "60,806 and 61,706",
            f"{sum(original.values()):,} original, {sum(modern.values()):,} modern; {layers}",
        ),
    ]


def seconds(variants: dict[C3, Variant], task: Task) -> list[Row]:
    """Reports seconds of training and test, their ratio, and that of the published loops."""
    published_ratio = SECONDS["original"] / SECONDS["modern"]
    ours = _own_ratio(variants)
    theirs = _published_loops_ratio(task)
    return [
        *(
            Row(
                f"seconds to train and test, {c3}",
                f"{SECONDS[c3] // 60} min {SECONDS[c3] % 60} s",
                _seconds_of(variants[c3]),
            )
            for c3 in VARIANTS
        ),
        Row(
            "original / modern, seconds",
            "approximately 10 times",
            f"{published_ratio:.1f} by the published times; {ours}{theirs:.1f} with the published "
            f"loop on {CPU}, in short slices",
        ),
    ]


def _seconds_of(variant: Variant) -> str:
    if variant.seconds is None:
        return f"not measured: the seeds shared {variant.device}"
    count = len(variant.timed)
    middle = f", the median of {count} seeds" if count > 1 else ""
    return (
        f"{variant.seconds:.1f} on {variant.device} for {variant.iterations:,} iterations and the "
        f"test, without set-up{middle}"
    )


def _own_ratio(variants: dict[C3, Variant]) -> str:
    original, modern = (variants[c3].seconds for c3 in VARIANTS)
    if original is None or modern is None:
        return ""
    return f"{original / modern:.2f} with the fused layers on {variants['original'].device}; "


def loss_curves(variants: dict[C3, Variant]) -> Row:
    """Reports the number of losses, and the means of the first and the last ones."""
    texts = []
    for c3, variant in variants.items():
        curve = variant.trainings[0].losses
        ends = [float(part.mean()) for part in (curve[:ENDS], curve[-ENDS:])]
        texts.append(f"{c3} {len(curve):,}, from {ends[0]:.2f} to {ends[1]:.3f}")
    return Row(
        "Figure 1",
        "training loss of each of 6,000 iterations",
        f"{'; '.join(texts)} (means of the first and last {ENDS})",
    )


def _published_loops_ratio(task: Task) -> float:
    """Returns original by modern, timed in turns, so that disturbances affect both alike."""
    loops = {c3: published.lenet5_iterations(c3, task.root, CPU) for c3 in VARIANTS}
    slices: dict[C3, list[float]] = {c3: [] for c3 in VARIANTS}
    for _ in range(QUICK_SLICES if task.quick else SLICES):
        for c3, loop in loops.items():
            slices[c3].append(seconds_per_iteration(loop, SLICE))
    original, modern = (statistics.median(slices[c3]) for c3 in VARIANTS)
    return original / modern
