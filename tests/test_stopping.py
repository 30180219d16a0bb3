"""Ctrl-C outside of a training: one line, and the exit code that shells have for it."""

from __future__ import annotations

import gc
import signal
import weakref

import pytest
from helpers import REPOSITORY, python
from lightning.pytorch import Callback

from data.images import reading
from models import learners
from project import fit, predict
from project.errors import user_errors
from project.recorded_run import RecordedRun


class StopsInTest(Callback):
    """As Ctrl-C does in the middle of a test."""

    def on_test_batch_start(self, *_):
        """Stops there."""
        raise KeyboardInterrupt


@pytest.fixture(autouse=True)
def _handler():
    """Lightning ignores the signal from the first one on."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def interrupted(*_, **__):
    raise KeyboardInterrupt


def stopped(capsys, main, *arguments):
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    assert stop.value.code == 130
    assert capsys.readouterr().err.splitlines()[-1] == "Stopped before the end."


def test_while_it_compiles_tests_and_reads_pictures(tiny, capsys, monkeypatch):
    small = ["--data.batch_size=20", "--trainer.max_epochs=1", "--figures=none"]
    with monkeypatch.context() as patch:
        patch.setattr(learners, "choose", interrupted)
        stopped(capsys, fit.main, *small)
    assert not list(tiny.rglob("*.ckpt"))
    stopped(capsys, fit.main, *small, "--trainer.callbacks=test_stopping.StopsInTest")
    fit.main([*small, "--ckpt_path=last", "--trainer.callbacks=null"])
    monkeypatch.setattr(reading, "read", interrupted)
    digits = str(REPOSITORY / "docs/digits")
    stopped(capsys, predict.main, "--ckpt_path=last", digits)


def test_before_the_program_begins():
    done = python("-c", "import project; raise KeyboardInterrupt")
    assert (done.returncode, done.stderr) == (130, "Stopped before the end.\n")


def test_other_ends_stay_as_they_are():
    for code in (0, 1, 2):
        with pytest.raises(SystemExit) as end, user_errors():
            raise SystemExit(code)
        assert end.value.code == code


def test_a_training_leaves_neither_itself_nor_its_handlers_behind(tiny):
    """A report trains hundreds of times in a process."""
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    small = ["--data.batch_size=20", "--trainer.max_epochs=1", "--figures=none"]
    run = RecordedRun(small, "")
    run.trainer.fit(run.model, datamodule=run.datamodule)
    run.trainer.test(run.model, datamodule=run.datamodule, verbose=False)
    assert {number: signal.getsignal(number) for number in before} == before
    parts = [weakref.ref(part) for part in (run, run.trainer, run.model, run.datamodule)]
    del run
    gc.collect()
    assert [part() for part in parts] == [None] * 4
