"""The measurements run, and say what they claim to; how fast things are is not tested."""

from __future__ import annotations

import pytest
from helpers import refusal
from PIL import Image

from project.bench import __main__ as bench
from project.bench import drawing, fit, iteration, scaling


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_loop_of_a_race_trains(mnist_root, workplace):
    entries = fit.contestants("lenet5-original", mnist_root)
    assert next(iter(entries)) == "published"
    assert list(entries)[-1] == fit.OURS
    for label, loop in entries.items():
        if "torch.compile" not in label:  # which takes half a minute
            assert loop.seconds(2) > 0
    assert list(workplace.iterdir()) == []


def test_figure_is_a_png_with_a_bar_for_each_row(workplace):
    loops = {"published": [0.01, 0.02], fit.OURS: [0.001, 0.001]}
    rows = [
        {"experiment": "mse", "loop": loop, "per iteration": seconds, "ratio": 1.0}
        for loop, seconds in loops.items()
    ]
    drawing.save(rows, workplace / "bench.png")
    with Image.open(workplace / "bench.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > 800


def test_figure_that_cannot_be_drawn_comes_after_the_values(workplace, monkeypatch, capsys):
    def broken(*args):
        raise RuntimeError("no room")

    monkeypatch.setitem(bench.QUESTIONS, "fit", lambda options: [])
    monkeypatch.setattr(drawing, "save", broken)
    line = refusal(capsys, bench.main, "--json=bench.json", "--png=bench.png")
    assert line == "error: no room"
    assert [path.name for path in workplace.iterdir()] == ["bench.json"]


def test_pieces_and_remainders_add_up_to_the_iteration(mnist_root):
    rows = iteration.run("modern", mnist_root, [10], 1, lambda text: None)
    seconds = {row["piece"]: row["seconds"] for row in rows}
    whole = seconds.pop(iteration.FIT)
    loop = seconds.pop(iteration.LOOP)
    gradient = seconds.pop(iteration.GRADIENT)
    assert sum(seconds.values()) == pytest.approx(whole)
    assert gradient + seconds[iteration.REST] == pytest.approx(loop)
    assert loop + seconds[iteration.LIGHTNING] == pytest.approx(whole)
    assert iteration.overhead(rows, 10) == pytest.approx(1 - gradient / whole)


def test_efficiency_is_speed_over_that_of_one_rank(monkeypatch, mnist_root):
    speeds = {1: 1000.0, 2: 1500.0, 4: 500.0}
    monkeypatch.setattr(scaling, "images_per_second", lambda batch, ranks, root: speeds[ranks])
    rows = scaling.run([100], mnist_root, 2, lambda text: None)
    assert [row["ranks"] for row in rows] == [1, 2, 4]
    assert [row["speed-up"] for row in rows] == [1, 1.5, 0.5]
    assert [row["efficiency"] for row in rows] == [1, 0.75, 0.125]


@pytest.mark.slow
def test_speed_is_that_of_a_run_on_several_ranks(mnist_root):
    assert scaling.images_per_second(100, 2, mnist_root, iterations=2) > 0
