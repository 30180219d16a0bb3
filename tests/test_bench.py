"""The measurements run, and say what they claim to; how fast things are is not tested."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers import refusal
from PIL import Image

from models.kernels import packages
from models.kernels.conv_pool import forward
from models.kernels.conv_pool.cpu import Convolution, shapes_of
from models.kernels.lenet5 import cpu, gradient
from models.nets import LeNet5
from project.bench import __main__ as bench
from project.bench import (
    drawing,
    fit,
    iteration,
    job,
    kernel,
    loops,
    measure,
    operations,
    questions,
    race,
    scaling,
)
from project.bench.measure import CPU
from project.bench.stamps import Stamped
from project.errors import UserError

NO_LOOPS = ("composite C3, default Trainer", "the same, torch.compile", fit.OURS)
"""Those that are not a loop of plain torch, or take half a minute to compile."""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_loop_of_a_race_trains(mnist_root, workplace):
    entries = fit.contestants("lenet5-original", mnist_root, CPU)
    assert next(iter(entries)) == "published"
    assert list(entries)[-1] == fit.OURS
    for label, loop in entries.items():
        if "torch.compile" not in label:  # which takes half a minute
            assert loop.seconds(2) > 0
    assert list(workplace.iterdir()) == []


def test_all_loops_of_a_race_compute_on_its_device(tiny_root, monkeypatch):
    """Here on "meta", which computes nothing; a Trainer and project.fit are told where."""
    seen, told, real = [], [], torch.Tensor.item

    def item(tensor):
        if tensor.device.type == "cpu":
            return real(tensor)
        seen.append(tensor.device.type)
        return 0.0

    def stop(*arguments, **options):
        told.append(options or arguments[0])
        raise KeyboardInterrupt

    monkeypatch.setattr(torch.Tensor, "item", item)
    for name, stock in (("lenet5-original", 3), ("mse", 1)):
        entries = fit.contestants(name, tiny_root, torch.device("meta"))
        loops_ = [loop for label, loop in entries.items() if label not in NO_LOOPS]
        assert len(loops_) == stock
        assert all(loop.seconds(1) > 0 for loop in loops_)
        assert seen == ["meta"] * stock
        seen.clear()
    monkeypatch.setattr(loops, "Trainer", stop)
    monkeypatch.setattr(fit.fit, "main", stop)
    monkeypatch.setitem(measure.ACCELERATORS, "meta", "gpu")
    entries = fit.contestants("lenet5-original", tiny_root, torch.device("meta"))
    for label in ("composite C3, default Trainer", fit.OURS):
        with pytest.raises(KeyboardInterrupt):
            entries[label].seconds(1)
    assert told[0]["accelerator"] == "gpu"
    assert told[0]["devices"] == 1
    assert {"--trainer.accelerator=gpu", "--trainer.devices=1"} < {*told[1]}


def test_each_device_has_a_race_of_its_own(monkeypatch, tiny, capsys):
    """A GPU is ten times as fast, at everything; ours is twice as fast as what is published."""

    def contestants(name, root, device):
        speed = 10 if device.type == "cuda" else 1
        seconds = {"published": 0.1, fit.OURS: 0.05}
        return {
            label: fit.Contestant(lambda count, s=second / speed: s, 4)
            for label, second in seconds.items()
        }

    monkeypatch.setattr(questions, "devices", lambda: [CPU, torch.device("cuda")])
    monkeypatch.setattr(fit, "contestants", contestants)
    bench.main(["--only=mse", "--repeats=1", "--json=bench.json", "--png=bench.png"])
    rows = json.loads(Path("bench.json").read_text())["rows"]
    assert [(row["device"], row["ratio"]) for row in rows] == [
        ("cpu", 1),
        ("cpu", 2),
        ("cuda", 1),
        ("cuda", 2),
    ]
    assert "cuda" in capsys.readouterr().out


def test_every_device_is_measured(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert measure.devices() == [CPU]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [device.type for device in measure.devices()] == ["cpu", "cuda"]
    peaks = []
    monkeypatch.setattr(kernel, "peak_flops", lambda device: peaks.append(device.type))
    monkeypatch.setattr(kernel, "measure", lambda name, batch, *_: [(name, batch)])
    assert len(kernel.run([1, 2], 1, lambda text: None)) == 2 * 2 * len(kernel.LAYERS)
    assert peaks == ["cpu", "cuda"]


def test_figure_is_a_png_with_a_bar_for_each_row(workplace):
    found = {"published": [0.01, 0.02], fit.OURS: [0.001, 0.001]}
    rows = [
        {
            "experiment": "mse",
            "device": "cpu",
            "loop": loop,
            "per iteration": seconds,
            "ratio": 1.0,
        }
        for loop, seconds in found.items()
    ]
    drawing.save(rows, workplace / "bench.png")
    with Image.open(workplace / "bench.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > 800


def test_figure_that_cannot_be_drawn_comes_after_the_values(workplace, monkeypatch, capsys):
    def broken(*args):
        raise RuntimeError("no room")

    asked = bench.QUESTIONS["fit"]._replace(run=lambda options: [], draw=broken)
    monkeypatch.setitem(bench.QUESTIONS, "fit", asked)
    line = refusal(capsys, bench.main, "--json=bench.json", "--png=bench.png")
    assert line == "error: no room"
    assert [path.name for path in workplace.iterdir()] == ["bench.json"]


@pytest.mark.slow
@pytest.mark.parametrize("command", ["python -m project.bench iteration"])
def test_pieces_of_an_iteration_add_up_to_it_and_none_is_below_zero(
    command, mnist_root, workplace, monkeypatch
):
    monkeypatch.setenv("MNIST_ROOT", str(mnist_root))
    threads = torch.get_num_threads()
    words = [*command.split()[3:], "--batches", "10", "1000", "--repeats=1", "--json=pieces.json"]
    bench.main(words)
    rows = json.loads(Path("pieces.json").read_text("utf-8"))["rows"]
    assert cpu.descent is gradient.descent
    assert torch.get_num_threads() == threads
    for batch in (10, 1000):
        seconds = {row["piece"]: row["seconds"] for row in rows if row["batch"] == batch}
        assert all(value > 0 for value in seconds.values())
        del seconds[iteration.WITHOUT]
        whole, call = seconds.pop(iteration.FIT), seconds.pop(iteration.CALL)
        assert sum(seconds.values()) == pytest.approx(whole, rel=0.05)
        assert call + seconds[iteration.OUTSIDE] == pytest.approx(whole, rel=1e-3)  # four digits
    counted = {row["piece"] for row in rows if row["gflops"]}
    assert {*operations.CONVOLUTION, *operations.WEIGHTS, operations.DENSE} < counted


def test_what_has_a_clock_in_it_cannot_be_taken_for_what_has_none():
    stamped = Stamped()
    made = {plain: timed for plain, timed in stamped._done.items() if timed is not plain}
    assert {forward.forward_group, gradient.descent} < made.keys()
    for plain, timed in made.items():
        assert timed.py_func.__qualname__ != plain.py_func.__qualname__


def test_operations_of_a_convolution_are_those_of_its_loops():
    net = LeNet5("modern")
    first, second = (Convolution(*layer.arguments()) for layer in (net.c1, net.c3))
    shapes = shapes_of(torch.empty(0, 1, 28, 28), first, second)
    found = operations.operations(net, shapes, 9)
    # 16 images in whole groups; 8 products for 4 sums; tiles of 10 rows.
    assert found[operations.CONVOLUTION[0]] == 16 * 6 * 30 * 7 * 8 * 5 * 2
    assert found[operations.CONVOLUTION[1]] == 16 * 96 * 10 * 3 * 8 * 5 * 2
    assert found[operations.WEIGHTS[0]] == 16 * 6 * 28 * 7 * 8 * 5 * 2


def test_without_numba_there_is_no_call_to_take_apart(workplace, monkeypatch):
    monkeypatch.setattr(packages, "MISSING", {"numba"})
    with pytest.raises(UserError, match=r"apart, but numba is not installed\."):
        iteration.run("original", workplace, [10], 1, lambda text: None)


def test_efficiency_is_speed_over_that_of_one_rank(monkeypatch, mnist_root):
    speeds = {1: 1000.0, 2: 1500.0, 4: 500.0}
    monkeypatch.setattr(scaling, "images_per_second", lambda batch, ranks, root: speeds[ranks])
    rows = scaling.run([100], mnist_root, 2, lambda text: None)
    assert [row["ranks"] for row in rows] == [1, 2, 4]
    assert [row["speed-up"] for row in rows] == [1, 1.5, 0.5]
    assert [row["efficiency"] for row in rows] == [1, 0.75, 0.125]


@pytest.mark.parametrize("c3", ["original", pytest.param("modern", marks=pytest.mark.slow)])
def test_race_runs_and_is_written_and_drawn(c3, tiny, monkeypatch):
    monkeypatch.setattr(race, "has_compiler", lambda: False)  # it would take half a minute
    monkeypatch.setattr(race, "waits", lambda *_: {"first": 40.0, "later": 5.0})
    monkeypatch.setattr(questions, "devices", lambda: [CPU])
    bench.main(["race", f"--c3={c3}", "--repeats=2", "--json=race.json", "--png=race.png"])
    assert sorted(path.name for path in tiny.iterdir()) == ["race.json", "race.png"]
    rows = json.loads((tiny / "race.json").read_text())["rows"]
    assert [row["loop"] for row in rows] == [
        "published",
        f"lenet5-{c3}-fast in plain torch",
        f"python -m project.fit --config lenet5-{c3}-fast",
    ]
    assert rows[-1]["waits"] == {"first": 40, "later": 5}
    for row in rows:
        assert row["device"] == "cpu"
        assert list(row["seconds"]) == ["98.64 %", "99 %"]
        for seed, curve in enumerate(row["curves"]):
            seconds, accuracies = zip(*curve, strict=True)
            assert list(seconds) == sorted(seconds)
            assert row["trained"][seed] == seconds[-1] > 0
            assert all(0 <= accuracy <= 1 for accuracy in accuracies)
    with Image.open(tiny / "race.png") as picture:
        assert picture.width > 800


def test_the_first_wait_finds_nothing_compiled_and_the_later_one_does(monkeypatch, tmp_path):
    found = []

    def fit_job(*options, **environment):
        cache = Path(environment["NUMBA_CACHE_DIR"])
        found.append(list(cache.iterdir()))
        (cache / "compiled").touch()

    monkeypatch.setattr(job, "fit", fit_job)
    waits = race.waits("original", tmp_path, CPU)
    assert list(waits) == ["first", "later"]
    assert [len(files) for files in found] == [0, 1]


def test_plain_torch_and_fit_train_by_the_same_recipe(tiny_root, workplace, monkeypatch):
    steps = []

    def step(optimizer, **_):
        (group,) = optimizer.param_groups
        steps.append((group["lr"], group["momentum"], group["nesterov"], group["weight_decay"]))

    monkeypatch.setattr(torch.optim.SGD, "step", step)
    entries = list(race.contestants("original", tiny_root, CPU).values())
    entries[1](0)
    plain, steps[:] = steps[:], []
    # Who is listened to takes the optimizer's own steps.
    monkeypatch.setattr("models.learners.compiled.CompiledGradient.obstacle", lambda *_: "a test")
    entries[-1](0)
    assert len(plain) > 2
    torch.testing.assert_close(torch.tensor(steps), torch.tensor(plain))


def test_a_target_is_reached_by_the_mean_over_the_seeds():
    lucky = [race.Look(1, 0.98), race.Look(2, 0.99), race.Look(3, 0.995)]
    other = [race.Look(1, 0.97), race.Look(2, 0.98), race.Look(4, 0.985)]
    assert race.seconds_to(0.99, [lucky, other]) == [3, 4]
    assert race.seconds_to(0.99, [other]) is None


def test_where_the_published_loop_never_arrives_the_ratio_is_a_lower_limit():
    ours = {"seconds": {"98.64 %": [1.0, 2.0], "99 %": None}, "trained": [2.0, 3.0]}
    arrives = {"seconds": {"98.64 %": [150.0]}, "trained": [300.0]}
    never = {"seconds": {"98.64 %": None}, "trained": [300.0]}
    assert race.times_faster(ours, arrives, "98.64 %") == "100.0 x"
    assert race.times_faster(ours, never, "98.64 %") == "over 200.0 x"
    assert race.times_faster(ours, arrives, "99 %") == ""


@pytest.mark.slow
def test_speed_is_that_of_a_run_on_several_ranks(mnist_root):
    assert scaling.images_per_second(100, 2, mnist_root, iterations=2) > 0
