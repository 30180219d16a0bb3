"""The measurements run, and say what they claim to; how fast things are is not tested."""

from __future__ import annotations

import pytest
import torch
from helpers import refusal
from PIL import Image

from models.kernels import compilers
from models.kernels.conv_pool.cpu import Convolution, shapes_of
from models.kernels.lenet5 import cpu, gradient
from models.nets import LeNet5
from project.bench import __main__ as bench
from project.bench import drawing, fit, iteration, operations, scaling
from project.errors import UserError


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


@pytest.mark.slow
def test_pieces_of_an_iteration_add_up_to_it_and_none_is_below_zero(mnist_root):
    threads = torch.get_num_threads()
    rows = iteration.run("modern", mnist_root, [10, 5000], 1, lambda text: None)
    assert cpu.descent is gradient.descent
    assert torch.get_num_threads() == threads
    for batch in (10, 5000):
        seconds = {row["piece"]: row["seconds"] for row in rows if row["batch"] == batch}
        assert all(value > 0 for value in seconds.values())
        del seconds[iteration.WITHOUT]
        whole, call = seconds.pop(iteration.FIT), seconds.pop(iteration.CALL)
        assert sum(seconds.values()) == pytest.approx(whole, rel=0.05)
        assert call + seconds[iteration.OUTSIDE] == pytest.approx(whole)
    counted = {row["piece"] for row in rows if row["gflops"]}
    assert {*operations.CONVOLUTION, *operations.WEIGHTS, operations.DENSE} < counted


def test_operations_of_a_convolution_are_those_of_its_loops():
    net = LeNet5("modern")
    first, second = (Convolution(*layer.arguments()) for layer in (net.c1, net.c3))
    shapes = shapes_of(torch.empty(0, 1, 28, 28), first, second)
    found = operations.operations(net, shapes, 9)
    # 16 images in two groups; 8 products for 4 sums; tiles of 10 rows.
    assert found[operations.CONVOLUTION[0]] == 16 * 6 * 30 * 7 * 8 * 5 * 2
    assert found[operations.CONVOLUTION[1]] == 16 * 96 * 10 * 3 * 8 * 5 * 2
    assert found[operations.WEIGHTS[0]] == 16 * 6 * 28 * 7 * 8 * 5 * 2


def test_without_numba_there_is_no_call_to_take_apart(workplace, monkeypatch):
    monkeypatch.setattr(compilers, "OBSTACLES", {"numba": "numba is not installed"})
    with pytest.raises(UserError, match=r"which there is not: numba is not installed\."):
        iteration.run("original", workplace, [10], 1, lambda text: None)


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
