from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from callbacks.timing import Timing


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("callbacks.timing.time.perf_counter", clock)
    return clock


class Logger:
    def __init__(self):
        self.logged = []

    def log_metrics(self, metrics, step):
        self.logged.append((step, metrics))


@pytest.fixture
def trainer():
    return SimpleNamespace(
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
        state=SimpleNamespace(fn="fit"),
        sanity_checking=False,
        global_step=0,
        loggers=[Logger()],
    )


def epoch(timing, trainer, clock, *, seconds, iterations, images):
    timing.on_train_epoch_start(trainer, None)
    clock.now += seconds
    trainer.global_step += iterations
    timing.on_train_batch_end(trainer, None, {"images": images}, None, 0)


def test_every_second_is_booked_on_its_stage(clock, trainer):
    timing = Timing()
    clock.now += 3
    timing.on_train_start(trainer, None)
    epoch(timing, trainer, clock, seconds=10, iterations=5, images=500)
    timing.on_validation_start(trainer, None)
    clock.now += 2
    timing.on_validation_end(trainer, None)
    timing.on_train_epoch_end(trainer, None)
    clock.now += 1  # writing a checkpoint is training time
    timing.on_train_end(trainer, None)
    clock.now += 50
    timing.on_test_start(trainer, None)
    clock.now += 4
    timing.on_test_end(trainer, None)
    assert timing.seconds == {"setup": 3, "train": 11, "validate": 2, "test": 4}
    assert timing.images_per_second == pytest.approx(500 / 11)
    assert trainer.loggers[0].logged == [
        (
            5,
            {
                "time/epoch_seconds": 10,
                "time/ms_per_iteration": 2000,
                "time/images_per_second": 50,
            },
        ),
        (5, {"time/setup_seconds": 3, "time/train_seconds": 11, "time/validate_seconds": 2}),
        (5, {"time/test_seconds": 4}),
    ]


def test_sanity_check_is_set_up(clock, trainer):
    timing = Timing()
    trainer.sanity_checking = True
    timing.on_validation_start(trainer, None)
    clock.now += 2
    timing.on_validation_end(trainer, None)
    trainer.sanity_checking = False
    timing.on_train_start(trainer, None)
    assert timing.seconds["setup"] == 2
    assert timing.seconds["validate"] == 0


def test_continued_run_adds_up(clock, trainer):
    first = Timing()
    first.on_train_start(trainer, None)
    epoch(first, trainer, clock, seconds=10, iterations=5, images=500)
    checkpoint = first.state_dict()
    second = Timing()
    clock.now += 7
    second.load_state_dict(checkpoint)
    second.on_train_start(trainer, None)
    epoch(second, trainer, clock, seconds=20, iterations=5, images=400)
    second.on_train_end(trainer, None)
    assert second.seconds == {"setup": 7, "train": 30, "validate": 0, "test": 0}
    assert second.images == 900


def test_no_speed_before_the_first_image(clock):
    assert Timing().images_per_second is None
