"""The report, on the tiny data set unless a claim needs the real one."""

from __future__ import annotations

import base64
import importlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import matplotlib.figure
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import REPOSITORY, loaded_by
from torch import nn

from project import confidence
from project.reproduce import (
    activation,
    jacobians,
    lenet,
    lenet_errata,
    lenet_figures,
    lenet_rows,
    report,
    runner,
    sections,
    store,
)
from project.reproduce.__main__ import main
from project.reproduce.parts import PARTS, PROBLEMS
from project.reproduce.record import Erratum, Figure, Outcome, Row, Task, Verdict
from project.reproduce.training import Training, Wanted, train

FAST = ["differences", "mean", "bottleneck", "activation"]
OUT = Path("out")


def reproduce(*args):
    main([*args, "--out", str(OUT)])


@pytest.fixture
def runs(monkeypatch):
    """Names of the parts that run, in order."""
    names = []
    finish = runner._finish

    def counted(part, *args):
        names.append(part.name)
        return finish(part, *args)

    monkeypatch.setattr(runner, "_finish", counted)
    return names


def test_every_part_is_a_module_with_its_function():
    for part in PARTS:
        assert part.problem in PROBLEMS
        assert callable(importlib.import_module(f"project.reproduce.{part.name}").run)


def test_finished_parts_need_no_torch():
    modules = loaded_by("import project.reproduce.__main__")
    assert "project.reproduce.report" in modules
    assert not {"torch", "lightning", "matplotlib", "numpy"} & modules


@pytest.mark.slow
def test_whole_quick_report(tiny, runs, capsys):
    reproduce("--quick")
    assert runs == [part.name for part in PARTS]
    printed = capsys.readouterr().out
    markdown = (OUT / "report.md").read_text(encoding="utf-8")
    for part in PARTS:
        assert f"## Problem {part.problem}: {part.title}" in markdown
        assert f"Problem {part.problem}: " in printed
    for problem in PROBLEMS:
        assert re.search(rf"^\| {problem} \| .+ \| .+ \|$", markdown, re.MULTILINE)
    assert "X[i, j+1]" in printed
    pictures = re.findall(r"\]\((.+\.png)\)", markdown)
    found = sections.sections(OUT)
    assert len(pictures) == sum(len(section.finished.outcome.figures) for section in found)
    assert len(set(pictures)) == len(pictures) >= 8
    assert all((OUT / name).is_file() for name in pictures)
    check_html((OUT / "report.html").read_text(encoding="utf-8"), len(pictures))
    assert errata(found) == listed_errata()
    assert sections.overview(found)[-1][2] == "shortened", "LeNet-5 in one epoch of ten"
    before = contents()
    runs.clear()
    reproduce("--quick")
    assert runs == []
    assert contents() == before


def errata(found):
    """Problem, printed and right of each, in order."""
    return [
        (str(section.part.problem), erratum.printed, erratum.right)
        for section in found
        for erratum in section.finished.outcome.errata
    ]


def listed_errata():
    lines = (REPOSITORY / "docs/errata.md").read_text(encoding="utf-8").splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("|")]
    return [tuple(row[:3]) for row in rows[2:]]


def contents():
    return {path.name: path.read_bytes() for path in OUT.iterdir() if path.is_file()}


class Page(HTMLParser):
    """What a browser would fetch, and whether every element is closed."""

    def __init__(self):
        super().__init__()
        self.sources, self.targets, self.ids, self.open = [], [], set(), []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        assert tag != "script"
        if tag not in ("meta", "link", "img"):
            self.open.append(tag)
        self.ids |= {values["id"]} if "id" in values else set()
        self.targets += [values["href"]] if tag == "a" else []
        self.sources += [values["src"]] if tag == "img" else []
        self.sources += [values["href"]] if tag == "link" else []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def check_html(text, pictures):
    page = Page()
    page.feed(text)
    assert page.open == []
    assert all(source.startswith("data:") for source in page.sources)
    assert sum(source.startswith("data:image/png;base64,") for source in page.sources) == pictures
    tables = [target for target in page.targets if target.startswith("data:text/csv;base64,")]
    assert len(tables) == 2  # of Table 1 and of LeNet-5
    assert {target.removeprefix("#") for target in page.targets} - set(tables) <= page.ids
    assert "http" not in text
    assert "url(" not in text


def test_parts_are_chosen_by_name_and_by_problem(tiny, runs):
    reproduce("mean", "--only", "1")
    assert runs == ["differences", "mean"]
    rows = sections.overview(sections.sections(OUT))
    assert [row[2] for row in rows] == ["confirmed", "corrected", *["not checked"] * 5]


@pytest.mark.parametrize("damage", ["options", "json", "figure", "force"])
def test_part_runs_again_when_it_must(damage, tiny, runs):
    reproduce("mean")
    more = []
    if damage == "options":
        more = ["--seed=1"]
    elif damage == "json":
        (OUT / "mean.json").write_text("{")
    elif damage == "figure":
        (OUT / "mean.png").unlink()
    else:
        more = ["--force"]
    reproduce("mean", *more)
    reproduce("mean", *[option for option in more if option != "--force"])
    assert runs == ["mean", "mean"]


@pytest.mark.slow
def test_interrupted_report_keeps_its_finished_parts(tiny, runs, monkeypatch, capsys):
    def interrupted(task):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(activation, "run", interrupted)
        with pytest.raises(SystemExit) as stopped:
            reproduce(*FAST)
    assert stopped.value.code == 130
    assert "the same command goes on" in capsys.readouterr().err
    reproduce(*FAST)
    assert runs == [*FAST, "activation"]


@pytest.mark.slow
def test_more_seeds_train_only_what_is_missing(tiny):
    reproduce("lenet", "--quick", "--runs=1")
    reproduce("lenet", "--quick", "--runs=2")
    folders = sorted(path.parent.name for path in OUT.glob("runs/*/version_*"))
    assert folders == [
        f"lenet5-{c3}-1-epochs-seed-{seed}" for c3 in ("modern", "original") for seed in (0, 1)
    ]
    assert json.loads((OUT / "lenet.json").read_text())["options"]["runs"] == 2


def test_published_report_carries_its_pictures(tiny):
    reproduce("differences", "activation", "--publish=docs")
    markdown = Path("docs/results.md").read_text(encoding="utf-8")
    pictures = re.findall(r"\]\((.+\.png)\)", markdown)
    assert pictures == ["results/differences.png", "results/activation.png"]
    assert all((Path("docs") / name).is_file() for name in pictures)


def test_published_report_carries_the_table_of_every_run(tiny):
    reproduce("mean", "table1", "--quick", "--runs=1", "--publish=docs")
    markdown = Path("docs/results.md").read_text(encoding="utf-8")
    assert re.findall(r"\]\((.+\.csv)\)", markdown) == ["results/table1.csv"]
    table = (OUT / "table1.csv").read_bytes()
    assert (Path("docs/results/table1.csv")).read_bytes() == table
    assert table.count(b"\n") == 6
    page = (OUT / "report.html").read_text(encoding="utf-8")
    (content,) = re.findall(r'download="table1.csv" href="data:text/csv;base64,(.+?)"', page)
    assert base64.b64decode(content) == table


def test_report_does_without_a_figure_that_cannot_be_drawn(tiny, runs, monkeypatch, capsys):
    def broken(*args, **options):
        raise RuntimeError("no room")

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", broken)
    reproduce("mean")
    reproduce("mean")
    assert runs == ["mean"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "warning: the figure mean.png could not be drawn (RuntimeError: no room)"
    assert not list(OUT.glob("*.png"))
    assert ".png" not in (OUT / "report.md").read_text()


def test_figures_are_drawn_in_matplotlibs_own_style(tiny, monkeypatch):
    monkeypatch.setitem(matplotlib.rcParams, "text.usetex", True)
    monkeypatch.setenv("PATH", "")  # without LaTeX
    reproduce("mean")
    assert (OUT / "mean.png").is_file()


def test_text_is_escaped(tmp_path):
    options = {"runs": 1, "seed": 0, "quick": False}
    errata = (Erratum("2 < 1", "1 < 2", "|1| < |2|"),)
    outcome = Outcome(Verdict.CONFIRMED, "1 < 2 & 3", (Row("|z| < 1", "<b>", "a"),), (), errata)
    store.save(tmp_path, "mean", store.Finished(outcome, options, 0.0, {}))
    report.write(tmp_path)
    markdown = (tmp_path / "report.md").read_text()
    assert "| \\|z\\| &lt; 1 | &lt;b> | a |" in markdown
    assert "| 2 &lt; 1 | 1 &lt; 2 | \\|1\\| &lt; \\|2\\| |" in markdown
    page = (tmp_path / "report.html").read_text()
    assert "<td>|z| &lt; 1</td><td>&lt;b&gt;</td>" in page
    assert "<td>2 &lt; 1</td><td>1 &lt; 2</td>" in page
    assert "<p>1 &lt; 2 &amp; 3</p>" in page


@pytest.mark.parametrize(
    "damage",
    [
        *('"text"', "[]", {"machine": None}, {"options": {}}, {"options": None}),
        {"outcome": {"verdict": "confirmed", "text": "", "rows": [], "errata": []}},
        {"outcome": None},
    ],
    ids=range(7),
)
def test_a_damaged_part_has_not_run(damage, tmp_path):
    outcome = Outcome(Verdict.CONFIRMED, "", (), (), ())
    store.save(tmp_path, "mean", store.Finished(outcome, {"runs": 1}, 0.0, {}))
    assert store.load(tmp_path, "mean")
    path = tmp_path / "mean.json"
    whole = json.loads(path.read_text())
    path.write_text(damage if isinstance(damage, str) else json.dumps(whole | damage))
    assert store.load(tmp_path, "mean") is None


def test_every_activation_of_torch_is_considered():
    considered = {
        *map(activation.name_of, (*activation.NON_DECREASING, *activation.NOT_MONOTONE)),
        *activation.NOT_ELEMENTWISE,
    }
    assert considered == set(nn.modules.activation.__all__)


@pytest.mark.parametrize("s", activation.NON_DECREASING, ids=activation.name_of)
def test_non_decreasing_activation_commutes_with_max_pooling_only(s):
    x = 3 * torch.randn(8, 2, 12, 12, dtype=torch.float64)
    assert activation.swap_error(s, x, "max") <= activation.ROUNDING
    assert activation.swap_error(s, x, "average") > 0.01


@pytest.mark.parametrize("s", activation.NOT_MONOTONE, ids=activation.name_of)
def test_other_activation_fails_left_of_its_lowest_point(s):
    lowest = activation.lowest_point(s)
    x = torch.rand(8, 2, 12, 12, dtype=torch.float64)
    assert activation.swap_error(s, lowest - x, "max") > 0.01
    assert activation.swap_error(s, lowest + x, "max") <= activation.ROUNDING


@pytest.mark.parametrize("depth", jacobians.DEPTHS)
def test_formulas_equal_autograd(depth):
    generator = torch.Generator().manual_seed(depth)
    for name, error in jacobians.compare(depth, "tanh", generator).items():
        assert error < jacobians.TOLERANCE, name


def test_sum_of_batch_means_over_images_is_too_small():
    logits, labels = torch.randn(1000, 10), torch.randint(10, (1000,))
    right, as_published = lenet_errata.loss_both_ways(logits, labels)
    assert right == pytest.approx(F.cross_entropy(logits, labels).item())
    assert right / as_published == pytest.approx(100)


def variant(*accuracies):
    tests = [{"accuracy": accuracy, "total": 10_000} for accuracy in accuracies]
    rest = {"iterations": 6_000, "device": "cuda:0 (a GPU)", "seconds": {"train": 1, "test": 0.5}}
    records = [{"test": test, **rest} for test in tests]
    return lenet_rows.Variant([Training(r, np.zeros(1, np.float32), Path()) for r in records])


@pytest.mark.parametrize(
    ("accuracies", "words"),
    [
        ([0.98], "98.00 %"),
        ([0.98, 0.99], "98.50 +- 0.50 %, from 98.00 % to 99.00 %: the published run is in this"),
        ([0.98, 0.986], "the published run is 4 images above this range"),
        ([0.987, 0.988], "the published run is 6 images below this range"),
    ],
)
def test_published_accuracy_is_placed_among_ours(accuracies, words):
    row = lenet_rows.accuracy("original", variant(*accuracies))
    assert row.published == "about 98.64 %"
    assert words in row.measured


def test_seconds_name_the_device_that_they_were_taken_on(monkeypatch):
    monkeypatch.setattr(lenet_rows, "_published_loops_ratio", lambda task: 2.0)
    variants = {"original": variant(0.98), "modern": variant(0.98)}
    *each, ratio = lenet_rows.seconds(variants, SimpleNamespace(runs=1))
    assert all(row.measured.startswith("1.5 on cuda:0 (a GPU) for 6,000") for row in each)
    assert "1.00 with the fused layers on cuda:0 (a GPU); 2.0 with the" in ratio.measured
    assert "published loop on cpu" in ratio.measured


def test_seconds_of_seeds_that_shared_a_gpu_are_nobodys(monkeypatch):
    monkeypatch.setattr(lenet_rows, "_published_loops_ratio", lambda task: 2.0)
    variants = {"original": variant(0.98, 0.98), "modern": variant(0.98, 0.98)}
    variants["modern"].trainings[0].record["seconds"] = {}
    assert variants["modern"].seconds == 1.5
    original, modern, _ = lenet_rows.seconds(variants, SimpleNamespace(runs=2))
    assert original.measured.endswith("the median of 2 seeds")
    assert modern.measured.endswith("without set-up")
    variants["modern"].trainings[1].record["seconds"] = {}
    _, modern, ratio = lenet_rows.seconds(variants, SimpleNamespace(runs=2))
    assert modern.measured == "not measured: the seeds shared cuda:0 (a GPU)"
    assert (
        ratio.measured == "6.9 by the published times; 2.0 with the published loop on cpu, in "
        "short slices"
    )


def test_pairs_of_the_same_seed_are_compared():
    variants = {"original": variant(0.98, 0.985, 0.99), "modern": variant(0.981, 0.984, 0.987)}
    (row,) = lenet_rows.paired_difference(lenet_rows.PLAIN, variants)
    # -0.1, 0.1 and 0.3 points: 0.1 +- 4.303 * 0.2 / sqrt(3).
    assert "plain recipe, 6,000 iterations" in row.claim
    assert "+0.100 points over 3 pairs" in row.measured
    assert "from -0.397 to +0.597" in row.measured
    assert not lenet_rows.paired_difference("fast", {name: variant(0.98) for name in variants})


@pytest.mark.parametrize(
    ("degrees", "quantile"), [(1, 12.706), (4, 2.776), (30, 2.042), (343, 1.967), (999, 1.962)]
)
def test_quantile_is_that_of_the_tables(degrees, quantile):
    assert confidence.student_quantile(degrees) == pytest.approx(quantile, abs=1e-3)


def test_confusion_counts_errors(tmp_path):
    labels = torch.tensor([4, 4, 9, 9])
    figure = lenet_figures.confusion(torch.tensor([4, 9, 9, 1]), labels, tmp_path)
    assert isinstance(figure, Figure)
    assert "2 of 4 are missed" in figure.caption


def test_missed_shows_the_chosen_digits(tmp_path):
    labels, answers = torch.tensor([4, 4, 9, 1]), torch.tensor([4, 9, 4, 2])
    images = torch.zeros(4, 28, 28, dtype=torch.uint8)
    assert lenet_figures.missed(images, answers, labels, (4, 9), tmp_path).caption.endswith(": 2.")
    assert lenet_figures.missed(images, labels, labels, (4, 9), tmp_path).caption.endswith(": 0.")


@pytest.mark.slow
def test_trainings_report_their_share(tiny, tiny_root, tmp_path):
    shares = []
    task = Task(root=tiny_root, folder=tmp_path, runs=1, quick=True, progress=shares.append)
    lenet.run(task)
    assert shares == sorted(shares)
    assert 0 < shares[0] <= 0.5
    assert shares[-1] == 1


@pytest.mark.slow
def test_training_of_several_epochs_ends_with_its_last_checkpoint(tiny, tiny_root, tmp_path):
    task = Task(root=tiny_root, folder=tmp_path, runs=1, quick=False, progress=lambda share: None)
    training = train(task, Wanted("lenet5-original", seed=0, epochs=3), task.progress)
    checkpoint = torch.load(training.checkpoint, weights_only=True)
    assert checkpoint["global_step"] == len(training.losses) == training.record["iterations"]
    assert len(list(training.checkpoint.parent.iterdir())) == 2


def test_errata_name_tests_that_exist():
    text = (REPOSITORY / "docs/errata.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/\w+\.py)::(\w+)`", text)
    assert len(named) == len(listed_errata())
    for path, test in named:
        assert f"def {test}(" in (REPOSITORY / path).read_text(encoding="utf-8"), test
