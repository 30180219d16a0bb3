"""How far something long is: lines in a log, a bar in a terminal."""

import re
from types import SimpleNamespace

import pytest
from lightning.pytorch import Callback

from callbacks import pace
from callbacks.pace import Pace
from callbacks.progress import ProgressBar
from project import bar, fit

SHORT = ["--data.batch_size=20", "--figures=none"]  # 7 iterations an epoch, one block
LEFT = r"\d+:\d\d passed, about (\d+:)+\d\d left"


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is moved."""

    class Clock:
        now = 0.0

        def perf_counter(self):
            return self.now

    made = Clock()
    monkeypatch.setattr(pace, "time", made)
    return made


@pytest.fixture
def _always_due(monkeypatch):
    monkeypatch.setattr(pace, "FIRST", 0)
    monkeypatch.setattr(pace, "EVERY", 0)


def test_lines_come_seldomer_until_every_minute(clock, capsys):
    speed = Pace()
    said = []
    for clock.now in range(300):
        if speed.is_due():
            speed.say(f"{clock.now} of 300", [clock.now / 300])
            said.append(clock.now)
    assert said == [10, 20, 40, 80, 140, 200, 260]
    lines = capsys.readouterr().err.splitlines()
    assert lines[3] == "80 of 300: 1:20 passed, about 3:40 left"


@pytest.mark.parametrize(
    ("before", "done", "passed", "left"),
    [
        (0, 0, 5, None),
        (0, 0.5, 5, "0:05"),
        (0, 1, 5, "0:00"),
        (0, 1.2, 5, "0:00"),
        (0.5, 0.5, 5, None),
        (0.5, 0.75, 60, "1:00"),
        (0, 0.01, 100, "2:45:00"),
        (0, 0.5, 59.7, "1:00"),
    ],
)
def test_what_is_left_is_as_slow_as_what_was_done_here(before, done, passed, left, clock):
    speed = Pace([before])
    clock.now = passed
    assert speed.left([done]) == left


def test_the_first_limit_ends_the_work(clock):
    """Continued at half of the iterations, which are slow; ten minutes are given."""
    speed = Pace([0.5, 0.0])
    for clock.now in (60, 310, 480):
        left = 600 - clock.now
        done = [0.5 + 0.0001 * clock.now / 60, clock.now / 600]
        assert speed.left(done) == f"{left // 60}:{left % 60:02}"
    assert Pace([]).left([]) is None


def test_a_log_that_is_full_does_not_end_the_work(monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sys.stderr", SimpleNamespace(write=full, flush=lambda: None))
    Pace().say("half", [0.5])


@pytest.mark.usefixtures("_always_due")
@pytest.mark.parametrize(
    ("options", "lines"),
    [
        (
            "--trainer.max_epochs=2",
            [f"epoch {n}, iteration {7 * n} of 14, loss .*: {LEFT}" for n in (1, 2)],
        ),
        (
            "--trainer.max_epochs=2 --trainer.max_steps=9",
            [f"epoch ., iteration {n} of 9," for n in (7, 9)],
        ),
        (
            "--trainer.max_epochs=-1 --trainer.max_steps=8",
            [f"epoch ., iteration {n} of 8," for n in (7, 8)],
        ),
        (
            "--trainer.max_epochs=-1 --trainer.max_time=00:01:00:00 "
            "--trainer.callbacks=test_progress.Stops",
            [rf"epoch 1, iteration 7, loss .*: {LEFT}"],
        ),
        (
            "--trainer.max_epochs=-1 --trainer.callbacks=test_progress.Stops",
            [r"epoch 1, iteration 7, loss .*: 0:0\d passed$"],
        ),
        ("--trainer.max_epochs=2 --trainer.enable_progress_bar=false", []),
    ],
)
def test_a_training_in_a_log_says_how_far_it_is(options, lines, tiny, capsys):
    fit.main([*SHORT, *options.split()])
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("epoch")]
    assert len(said) == len(lines)
    for line, pattern in zip(said, lines, strict=True):
        assert re.match(pattern, line)


class Stops(Callback):
    """Ends a training that has no end."""

    def on_train_epoch_end(self, trainer, pl_module):
        trainer.should_stop = True


def test_a_bar_says_what_is_left_of_all_epochs(clock, tiny, monkeypatch):
    described = []
    describe = ProgressBar._get_train_description

    def kept(self, epoch):
        clock.now = 10 * self.trainer.global_step / 7
        described.append(describe(self, epoch))
        return described[-1]

    monkeypatch.setattr(ProgressBar, "_get_train_description", kept)
    fit.main([*SHORT, "--trainer.max_epochs=3", "--trainer.enable_progress_bar=true"])
    assert described[0] == "Epoch 1/3"
    assert [text for text in dict.fromkeys(described) if "left" in text] == [
        "Epoch 1/3, 0:20 left",
        "Epoch 2/3, 0:20 left",
        "Epoch 2/3, 0:10 left",
        "Epoch 3/3, 0:10 left",
        "Epoch 3/3, 0:00 left",
    ]


@pytest.mark.usefixtures("_always_due")
def test_programs_of_many_steps_say_how_far_they_are(capsys):
    with bar.shown(4) as at:
        at("first", 0)
        at("second", 1)
    first, second = capsys.readouterr().err.splitlines()
    assert first == "first: 0:00 passed"
    assert re.fullmatch(f"second: {LEFT}", second)


def test_a_terminal_has_a_bar_instead(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with bar.shown(4) as at:
        at("second", 1)
    assert "second" in capsys.readouterr().err
