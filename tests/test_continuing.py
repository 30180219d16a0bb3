"""A training that is killed, stopped, broken off, extended any number of times is the same one."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import continued
import numpy as np
import pytest
import torch
from continued import Piece, difference
from helpers import REPOSITORY, assert_same_weights, refusal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lightning.pytorch import Callback, Trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from callbacks.checkpoint import BlockCheckpoint
from callbacks.interrupt import Interrupt
from callbacks.loss_log import LossLog
from callbacks.run_folder import RunFolder, claim_version
from callbacks.tensorboard import TensorBoard
from data import MNISTDataModule, source
from models.lenet import LeNet5
from project import evaluate, fit
from project.experiments import last_checkpoint
from project.recorded_run import RecordedRun
from project.request import read_request

pytestmark = pytest.mark.filterwarnings("ignore")

SMALL = ["--data.batch_size=20", "--figures=none", "--trainer.max_epochs=2"]  # of 7 iterations


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@st.composite
def trainings(draw):
    """An experiment, and the pieces that it is trained in."""
    experiment = draw(st.sampled_from(sorted(continued.EXPERIMENTS)))
    piece = st.builds(
        Piece,
        end=st.sampled_from(continued.ends(experiment)),
        hook=st.sampled_from(continued.HOOKS),
        count=st.integers(1, 6),
        block_size=st.sampled_from(continued.BLOCK_SIZES),
        every=st.sampled_from(continued.EVERY),
    )
    return experiment, draw(st.lists(piece, min_size=1, max_size=6))


@pytest.mark.slow
@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(training=trainings())
def test_pieces_of_a_training_make_the_whole(training, tiny_root, workplace, one_thread):
    assert not difference(*training, tiny_root)


@pytest.mark.slow
def test_pieces_make_the_whole_on_two_ranks(tiny_root, workplace):
    sequences = []
    for seed, experiment in enumerate(("lenet", "tuned", "validated")):
        pieces = continued.random_pieces(random.Random(seed), experiment, ranks=2)
        sequences.append((experiment, pieces[:3]))
    assert "DIFFERENCE" not in two_ranks(tiny_root, sequences)


def two_ranks(root: Path, sequences: list) -> str:
    """What the first of two ranks prints."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    program = [sys.executable, str(REPOSITORY / "tests/continued.py"), str(root)]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [*program, str(rank), port, json.dumps(sequences)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    try:
        texts = [rank.communicate(timeout=60) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0, 0], texts
    return texts[0][0]


def checkpoints(name: str = "lenet5-original") -> list[str]:
    folder = Path("runs") / name / "version_0/checkpoints"
    return sorted(path.name for path in folder.iterdir())


class Raises(Callback):
    """A user's own, with a fault in it."""

    def on_train_batch_end(self, *_):
        raise AssertionError("a fault in the user's callback")


@pytest.mark.slow
@pytest.mark.parametrize(
    "ending",
    [
        "--trainer.max_time={seconds: 1}",
        "--trainer.limit_train_batches=0.5",
        "--trainer.limit_train_batches=1",
        "--trainer.overfit_batches=1",
        "--trainer.max_steps=3",
        "--trainer.callbacks=test_continuing.Raises",
    ],
)
def test_last_weights_are_in_the_last_checkpoint(ending, tiny, monkeypatch):
    trained = {}
    on_exception, on_train_end = BlockCheckpoint.on_exception, BlockCheckpoint.on_train_end

    def remember(self, trainer, module, *_):
        trained.update({name: w.clone() for name, w in module.state_dict().items()})
        trained["step"] = trainer.global_step

    def remembers(self, trainer, module, exception):
        remember(self, trainer, module)
        on_exception(self, trainer, module, exception)

    monkeypatch.setattr(BlockCheckpoint, "on_train_end", remember)
    monkeypatch.setattr(BlockCheckpoint, "on_exception", remembers)
    options = [*SMALL, "--data.block_size=3", ending]
    options += ["--trainer.max_epochs=100000"] if "max_time" in ending else []
    if "Raises" in ending:
        with pytest.raises(AssertionError, match="a fault"):
            fit.main(options)
    else:
        fit.main(options)
    monkeypatch.setattr(BlockCheckpoint, "on_exception", on_exception)
    monkeypatch.setattr(BlockCheckpoint, "on_train_end", on_train_end)
    saved = last_checkpoint("lenet5-original")
    assert saved.iterations == trained.pop("step") > 0
    assert_same_weights(saved.state_dict, trained)


def test_rest_of_an_epoch_is_counted_in_images_with_another_batch_size(tiny):
    fit.main([*SMALL, "--trainer.max_steps=4"])  # 80 of 130 images
    fit.main(["--ckpt_path=last", "--trainer.max_steps=-1", "--data.batch_size=10"])
    losses = np.load("runs/lenet5-original/version_0/losses.npy")
    assert len(losses) == 4 + 5 + 13
    assert np.isfinite(losses).all()


def test_epoch_of_another_length_is_refused_inside_and_taken_at_its_end(tiny, capsys):
    fit.main(["--config=logistic", "--data.iterations=20", "--trainer.max_steps=5"])
    longer = ["--ckpt_path=last", "--trainer.max_steps=-1", "--data.iterations=30"]
    line = refusal(capsys, fit.main, *longer)
    assert "5 images into an epoch of 20, and an epoch now has 30" in line
    fit.main(["--ckpt_path=last", "--trainer.max_steps=-1"])
    fit.main(["--ckpt_path=last", "--trainer.max_epochs=2", "--data.iterations=30"])
    assert len(np.load("runs/logistic/version_0/losses.npy")) == 50


def test_only_what_was_written_is_deleted(tiny):
    fit.main(SMALL)
    folder = Path("runs/lenet5-original/version_0/checkpoints")
    first, second = checkpoints()
    own = ("epoch=0-step=7-good.ckpt", "epoch=0-step=5.ckpt", "interrupted-step=3.ckpt", "x.tmp")
    for name in own:
        shutil.copy(folder / first, folder / name)
    (folder / f".{second}.0123abcd.tmp").touch()  # of a process that was killed while it saved
    for epochs in (3, 4, 5):
        fit.main(["--ckpt_path=last", f"--trainer.max_epochs={epochs}"])
    assert checkpoints() == sorted([*own, "epoch=3-step=28.ckpt", "epoch=4-step=35.ckpt"])


def test_file_of_the_user_keeps_its_name(tiny):
    fit.main(SMALL)
    folder = Path("runs/lenet5-original/version_0/checkpoints")
    mine = folder / "epoch=2-step=21.ckpt"
    mine.write_bytes(b"mine")
    fit.main(["--ckpt_path=last", "--trainer.max_epochs=3"])
    assert mine.read_bytes() == b"mine"
    assert "epoch=2-step=21-v1.ckpt" in checkpoints()
    assert last_checkpoint("lenet5-original").path.name == "epoch=2-step=21-v1.ckpt"


def test_last_is_what_the_files_say_whatever_their_times(tiny, capsys):
    fit.main([*SMALL, "--trainer.max_epochs=3"])
    folder = Path("runs/lenet5-original/version_0/checkpoints")
    older, newer = checkpoints()
    os.utime(folder / newer, (0, 0))
    shutil.copy(folder / older, folder / "zzz.ckpt")
    evaluate.main(["--ckpt_path=last"])
    assert f"Checkpoint: {folder / newer}" in capsys.readouterr().err


def test_last_is_that_of_the_branch_that_was_trained_last(tiny):
    fit.main([*SMALL, "--trainer.max_epochs=3"])
    folder = Path("runs/lenet5-original/version_0/checkpoints")
    earlier = folder / checkpoints()[0]
    fit.main([f"--ckpt_path={earlier}", "--trainer.max_steps=16", "--model.lr=0.01"])
    assert last_checkpoint("lenet5-original").iterations == 16


def test_last_without_a_name_is_the_last_run_of_any_name(tiny):
    for name in ("b", "c", "a"):
        fit.main([*SMALL, f"--name={name}"])
    assert read_request(["--ckpt_path=last"]).name == "a"
    assert read_request(["--ckpt_path=last", "--name=c"]).name == "c"
    fit.main(["--ckpt_path=last", "--trainer.max_epochs=3", "--name=b"])
    assert read_request(["--ckpt_path=last"]).name == "b"


def test_checkpoints_of_older_versions_come_by_version_and_step(tiny):
    for _ in range(2):
        fit.main([*SMALL, "--trainer.max_epochs=2"])
    fit.main([*SMALL, "--trainer.max_epochs=1"])
    for path in Path("runs").rglob("*.ckpt"):
        content = torch.load(path, weights_only=True)
        del content["saved_at"]
        torch.save(content, path)
    newest = last_checkpoint("lenet5-original")
    assert (newest.path.parent.parent.name, newest.iterations) == ("version_2", 7)
    shutil.rmtree(newest.path.parent.parent)
    newest = last_checkpoint("lenet5-original")
    assert (newest.path.parent.parent.name, newest.iterations) == ("version_1", 14)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["best.ckpt", "elsewhere/best.ckpt", "link.ckpt"])
def test_checkpoint_may_lie_anywhere(place, tiny):
    fit.main(SMALL)
    path = Path("runs/lenet5-original/version_0/checkpoints") / checkpoints()[-1]
    Path("elsewhere").mkdir()
    if place == "link.ckpt":
        Path(place).symlink_to(path)
    else:
        shutil.copy(path, place)
    fit.main([f"--ckpt_path={place}", "--trainer.max_epochs=3"])
    newest = max(Path("runs/lenet5-original").glob("version_*/losses.npy"))
    losses = np.load(newest)
    assert len(losses) == 21
    assert np.isfinite(losses[14:]).all()
    assert np.isfinite(losses[:14]).all() == (place == "link.ckpt"), "else nobody knows them"


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"", b"half", b"\x93NUMPY\x01\x00v\x00{'descr': '<f4'", None])
def test_damaged_losses_are_set_aside(content, tiny, capsys):
    fit.main(SMALL)
    path = Path("runs/lenet5-original/version_0/losses.npy")
    if content is None:
        np.save(path, np.array([{"an": "object"}], dtype=object))
        content = path.read_bytes()
    path.write_bytes(content)
    fit.main(["--ckpt_path=last", "--trainer.max_epochs=3"])
    assert "is damaged: set aside as losses-damaged-0.npy" in capsys.readouterr().err
    assert (path.parent / "losses-damaged-0.npy").read_bytes() == content
    assert np.isnan(np.load(path)).tolist() == [True] * 14 + [False] * 7


def test_runs_that_start_at_once_get_folders_of_their_own(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        claimed = list(pool.map(lambda _: claim_version(tmp_path / "name"), range(40)))
    assert sorted(claimed) == list(range(40))
    (tmp_path / "name/version_old").mkdir()
    assert claim_version(tmp_path / "name") == 40


def test_folder_is_given_back_where_nothing_came_of_the_run(tiny, monkeypatch):
    monkeypatch.setattr(source, "_sources", lambda: [])  # no network
    with pytest.raises(SystemExit):
        fit.main([*SMALL, "--data.root=nowhere"])
    assert not list(Path("runs").glob("*/version_*"))


def test_folder_is_given_back_where_the_training_was_refused(tiny):
    for option in ("limit_train_batches=0.001", "val_check_interval=100"):
        with pytest.raises(SystemExit):
            fit.main([*SMALL, "--data.val_size=30", f"--trainer.{option}"])
        assert not list(Path("runs").glob("*/version_*"))


def test_nothing_is_saved_where_nothing_may_be(tiny):
    fit.main([*SMALL, "--trainer.fast_dev_run=2"])
    assert not Path("runs").exists()
    fit.main([*SMALL, "--trainer.enable_checkpointing=false"])
    assert not list(Path("runs").rglob("*.ckpt"))


def test_plain_trainer_continues_any_number_of_times(tiny, tiny_root):
    path = None
    for epochs in (1, 2, 3, 4):
        saves = BlockCheckpoint()
        saves.dirpath = "plain"
        trainer = Trainer(
            max_epochs=epochs,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[saves],
            accelerator="cpu",
        )
        data = MNISTDataModule(str(tiny_root), batch_size=20)
        trainer.fit(LeNet5(), data, ckpt_path=path, weights_only=True)
        assert trainer.global_step == 7 * epochs
        path = saves.best_model_path


def test_what_the_program_records_comes_before_what_a_user_raises(tiny):
    cli = RecordedRun([*SMALL, "--trainer.callbacks=test_continuing.Raises"], "")
    names = [type(callback).__name__ for callback in cli.trainer.callbacks]
    assert names.index("LossLog") < names.index("Raises") < names.index("Interrupt")
    assert names[-1] == "BlockCheckpoint"


@pytest.mark.slow
@pytest.mark.parametrize("logger", ["false", "lightning.pytorch.loggers.CSVLogger"])
def test_run_has_its_folder_whatever_it_logs_to(logger, tiny):
    Path("config.yaml").write_text("experiment: lenet5\nname: mine\n")
    more = ["--trainer.logger.save_dir=csv"] if "CSV" in logger else []
    fit.main(["--config=config.yaml", f"--trainer.logger={logger}", *more, *SMALL])
    assert Path("config.yaml").read_text() == "experiment: lenet5\nname: mine\n"
    assert {path.name for path in Path().iterdir()} == {"config.yaml", "runs"} | (
        {"csv"} if more else set()
    )
    assert {path.name for path in Path("runs/mine/version_0").iterdir()} == {
        "checkpoints",
        "config.yaml",
        "losses.npy",
        "results.json",
    }
    fit.main(["--ckpt_path=last", "--trainer.max_epochs=3"])
    assert len(np.load("runs/mine/version_0/losses.npy")) == 21


class Signals(Callback):
    """Sends SIGTERM in a block, and another one while the checkpoint is written."""

    def __init__(self, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = block
        self.patch = monkeypatch

    def on_train_batch_end(self, *_):
        self.left -= 1
        if not self.left:
            signal.raise_signal(signal.SIGTERM)
            sync = os.fsync

            def interrupted(file):
                self.patch.undo()
                signal.raise_signal(signal.SIGTERM)
                sync(file)

            self.patch.setattr(os, "fsync", interrupted)


@pytest.mark.slow
@pytest.mark.parametrize("block", [1, 2, 3, 4])
def test_signals_cost_neither_weights_nor_validations(block, tiny, tiny_root):
    """Of 2 epochs of 2 blocks; a second signal comes while the first one's checkpoint is saved."""

    def run(name, path, callbacks):
        torch.manual_seed(0)
        folder = RunFolder(Path(name), "version_0")
        model, data = LeNet5(), MNISTDataModule(str(tiny_root), 20, 3, val_size=20)
        trainer = Trainer(
            max_epochs=2,
            accelerator="cpu",
            logger=TensorBoard(folder),
            callbacks=[folder, LossLog(), *callbacks, Interrupt(), BlockCheckpoint()],
            enable_progress_bar=False,
            enable_model_summary=False,
            log_every_n_steps=1,
        )
        trainer.fit(model, data, ckpt_path=path, weights_only=True)
        trainer.logger.experiment.flush()

    def validated(name):
        events = EventAccumulator(f"{name}/version_0").Reload()
        return [event.step for event in events.Scalars("val/loss")]

    run("whole", None, [])
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    with pytest.MonkeyPatch.context() as patch, pytest.raises((SystemExit, KeyboardInterrupt)):
        run("stopped", None, [Signals(block, patch)])
    signal.signal(signal.SIGTERM, previous)
    saved = Path("stopped").rglob("*.ckpt")
    run("stopped", max(saved, key=lambda path: int(path.stem.split("=")[-1])), [])
    assert validated("stopped") == validated("whole") == [6, 12]
    whole, stopped = (np.load(f"{name}/version_0/losses.npy") for name in ("whole", "stopped"))
    np.testing.assert_array_equal(whole, stopped)


@pytest.mark.slow
def test_digits_of_64_bits_are_continued(tiny):
    options = [*SMALL, "--trainer.precision=64-true"]
    fit.main([*options, "--name=whole"])
    fit.main([*options, "--trainer.max_steps=5"])
    fit.main(["--ckpt_path=last", "--trainer.max_steps=-1"])
    whole, continued_ = last_checkpoint("whole"), last_checkpoint("lenet5-original")
    assert_same_weights(whole.state_dict, continued_.state_dict)


@pytest.mark.slow
def test_losses_in_the_folder_of_somebody_else_stay(tiny):
    fit.main(SMALL)
    Path("mine/checkpoints").mkdir(parents=True)
    path = Path("runs/lenet5-original/version_0/checkpoints") / checkpoints()[-1]
    shutil.copy(path, "mine/checkpoints/best.ckpt")
    np.save("mine/losses.npy", np.zeros(3))
    fit.main(["--ckpt_path=mine/checkpoints/best.ckpt", "--trainer.max_epochs=3"])
    assert [path.name for path in Path("mine").iterdir() if path.is_file()] == ["losses.npy"]
    assert np.load("mine/losses.npy").dtype == np.float64


def test_flipped_bits_of_a_checkpoint_are_damage(tiny, capsys):
    fit.main(SMALL)
    folder = Path("runs/lenet5-original/version_0/checkpoints")
    older, newest = (folder / name for name in checkpoints())
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    assert last_checkpoint("lenet5-original").path == older
    assert f"Left out: {newest} is not a checkpoint, or is damaged" in capsys.readouterr().err
