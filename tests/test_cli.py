"""The programs from the outside: what they print, write and refuse."""

from __future__ import annotations

import json
import os
import signal
import time
from inspect import signature
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from helpers import REPOSITORY, assert_same_weights, python, refusal
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from data import source
from models.lenet import LeNet5
from models.linear import Linear
from project import __main__ as programs
from project import evaluate, export, fit, predict
from project.bench import __main__ as bench
from project.experiments import CONFIGS
from project.reproduce import __main__ as reproduce
from project.request import read_request

PARAMETERS = {
    "lenet5-1998": 60_000,
    "lenet5-modern": 61_706,
    "lenet5-modern-fast": 61_706,
    "lenet5-modern-tuned": 61_706,
    "lenet5-original": 60_806,
    "lenet5-original-fast": 60_806,
    "lenet5-original-tuned": 60_806,
}
CONFIG_NAMES = [
    *PARAMETERS,
    "logistic",
    "logistic-tuned",
    "mse",
    "mse-as-printed",
    "mse-tuned",
]
# 130 images in batches of 20: 7 iterations an epoch, 3 of them in a block.
SMALL = ["--data.batch_size=20", "--data.block_size=3", "--trainer.max_epochs=2", "--figures=none"]
SMALL_LINEAR = ["--data.iterations=40", "--data.block_size=15", "--figures=none"]


def program(name, *args, **options):
    """A program in a process of its own."""
    return python("-m", f"project.{name}", *args, **options)


def results(folder):
    return json.loads((folder / "results.json").read_text())


def test_configs_are_those_of_the_document():
    assert sorted(path.stem for path in CONFIGS.glob("*.yaml")) == CONFIG_NAMES


@pytest.mark.parametrize("name", CONFIG_NAMES)
def test_config_begins_with_the_command_that_runs_it(name):
    first_line = (CONFIGS / f"{name}.yaml").read_text().splitlines()[0]
    assert first_line == f"# python -m project.fit --config {name}"


@pytest.mark.parametrize("name", CONFIG_NAMES)
def test_fit_trains_tests_and_records(name, tiny, capsys):
    is_lenet = name.startswith("lenet5")
    fit.main(["--config", name, *(SMALL if is_lenet else SMALL_LINEAR)])
    folder = Path("runs") / name / "version_0"
    iterations = 14 if is_lenet else 40
    record = results(folder)
    assert record["config"] == name
    config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    assert record["seed"] == config["seed_everything"]
    assert record["iterations"] == iterations
    assert record["world_size"] == 1
    assert record["device"] == "cpu" or torch.cuda.is_available()
    fused = "composite" if name == "lenet5-1998" else "cpu"
    assert record["backend"] == fused or torch.cuda.is_available()
    if not torch.cuda.is_available():
        assert record["learner"] == ("compiled" if is_lenet else "sequential")
        assert record["why_not_faster"] == ""
    assert record["parameters"] == PARAMETERS.get(name, 785)
    assert set(record["seconds"]) == {"setup", "train", "validate", "test"}
    assert all(record["seconds"][stage] > 0 for stage in ("setup", "train", "test"))
    assert set(record["versions"]) == {"python", "torch", "lightning"}
    assert record["images_per_second"] > 0
    assert "git" in record
    test = record["test"]
    assert test["accuracy"] == test["correct"] / test["total"]
    assert np.load(folder / "losses.npy").shape == (iterations,)
    assert (folder / "config.yaml").is_file()
    assert len(list((folder / "checkpoints").glob("*.ckpt"))) == (2 if is_lenet else 1)
    printed = capsys.readouterr()
    assert f"learner {record['learner']}, into {folder}" in printed.out.splitlines()[0]
    for words in ("test accuracy", str(folder), "tensorboard --logdir runs"):
        assert words in printed.out
    assert "lit" not in printed.out + printed.err, "no advertisements"


def test_every_iteration_reaches_tensorboard(tiny):
    fit.main([*SMALL, "--data.val_size=30"])
    folder = Path("runs/lenet5-original/version_0")
    losses = np.load(folder / "losses.npy")
    scalars = {}
    for file in folder.glob("events*"):
        events = EventAccumulator(str(file)).Reload()
        for tag in events.Tags()["scalars"]:
            scalars[tag] = events.Scalars(tag)
    assert [event.step for event in scalars["train/loss"]] == list(range(1, len(losses) + 1))
    np.testing.assert_array_equal(np.float32([e.value for e in scalars["train/loss"]]), losses)
    assert [event.step for event in scalars["val/accuracy"]] == [5, 10]
    assert [event.step for event in scalars["time/epoch_seconds"]] == [5, 10]
    assert [event.step for event in scalars["test/accuracy"]] == [10]
    assert [event.step for event in scalars["time/train_seconds"]] == [10]


def test_checkpoint_needs_no_company(tiny, tmp_path, capsys):
    fit.main(["--config", "lenet5-modern", *SMALL])
    path = max(Path("runs").rglob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    moved = path.rename(tmp_path / "moved.ckpt")
    record = results(Path("runs/lenet5-modern/version_0"))
    capsys.readouterr()
    evaluate.main(["--ckpt_path", str(moved)])
    assert f"({record['test']['correct']} of 70)" in capsys.readouterr().out
    assert [p.name for p in Path("runs").rglob("version_*")] == ["version_0"], "nothing is written"
    assert LeNet5.load_from_checkpoint(moved, weights_only=True).hparams.c3 == "modern"


def test_linear_checkpoint_loads_in_python(tiny):
    fit.main(["--config", "mse", *SMALL_LINEAR])
    (path,) = Path("runs").rglob("*.ckpt")
    assert Linear.load_from_checkpoint(path, weights_only=True).hparams.loss == "mse"


def test_config_of_a_run_repeats_it(tiny):
    fit.main([*SMALL, "--seed_everything=5"])
    fit.main(["--config", "runs/lenet5-original/version_0/config.yaml"])
    first, second = (Path("runs/lenet5-original") / f"version_{i}" for i in (0, 1))
    np.testing.assert_array_equal(np.load(first / "losses.npy"), np.load(second / "losses.npy"))


def test_last_checkpoint_continues_its_run_with_its_options(tiny):
    fit.main([*SMALL, "--seed_everything=5", "--trainer.max_epochs=1"])
    fit.main(["--ckpt_path=last", "--trainer.max_epochs=2"])
    fit.main([*SMALL, "--seed_everything=5", "--name=whole"])
    continued, whole = Path("runs/lenet5-original/version_0"), Path("runs/whole/version_0")
    np.testing.assert_array_equal(np.load(continued / "losses.npy"), np.load(whole / "losses.npy"))
    assert results(continued)["test"] == results(whole)["test"]
    assert not continued.with_name("version_1").exists()


def test_checkpoint_that_a_file_asks_for_is_continued_with_its_options(tiny):
    fit.main(SMALL)
    file = "experiment: lenet5\nname: lenet5-original\nckpt_path: last\ntrainer: {max_epochs: 3}\n"
    Path("more.yaml").write_text(file)
    fit.main(["--config=more.yaml"])
    assert len(np.load("runs/lenet5-original/version_0/losses.npy")) == 21


def test_continuing_under_another_name_takes_the_losses_along(tiny):
    fit.main([*SMALL, "--trainer.max_epochs=1", "--name=first"])
    (path,) = Path("runs/first").rglob("*.ckpt")
    fit.main([f"--ckpt_path={path}", "--trainer.max_epochs=2", "--name=second"])
    fit.main([*SMALL, "--name=whole"])
    losses = [np.load(f"runs/{name}/version_0/losses.npy") for name in ("second", "whole", "first")]
    np.testing.assert_array_equal(losses[0], losses[1])
    assert 0 < len(losses[2]) < len(losses[1])


def test_restart_looks_at_numbered_folders_only(tiny, monkeypatch):
    fit.main([*SMALL, "--trainer.max_epochs=1"])
    folder = Path("runs/lenet5-original")
    (folder / "version_0/results.json").unlink()
    (folder / "version_old").mkdir()
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    checkpoint = read_request([]).checkpoint
    assert checkpoint.path.parent.parent == folder / "version_0"


def test_truncated_data_is_refused_and_left_alone(mnist_root, tmp_path, workplace, capsys):
    folder = source.raw_folder(tmp_path)
    folder.mkdir(parents=True)
    for name in source.CHECKSUMS:
        (folder / name).symlink_to(source.raw_folder(mnist_root) / name)
    damaged = folder / "train-images-idx3-ubyte"
    damaged.unlink()
    damaged.write_bytes(b"\0" * 1000)
    line = refusal(capsys, fit.main, "--data.root", str(tmp_path))
    assert "train-images-idx3-ubyte is no IDX file of 3 dimensions" in line
    assert damaged.read_bytes() == b"\0" * 1000


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_fit_can_be_continued(number, code, nursery, mnist_root, tmp_path):
    how = {"folder": tmp_path, "MNIST_ROOT": str(mnist_root)}
    run = nursery.start("--config=logistic", "--data.block_size=100", **how)
    losses = tmp_path / "runs/logistic/version_0/losses.npy"
    while run.poll() is None and not (losses.exists() and losses.stat().st_size > 1000):
        time.sleep(0.01)
    os.kill(run.pid, number)
    interrupted = run.wait()
    assert interrupted.returncode == code, interrupted.stderr
    done = int(interrupted.stderr.split("Stopped after iteration ")[1].split(".")[0])
    assert len(np.load(losses)) == done < 50_000
    nursery.run("--ckpt_path=last", f"--trainer.max_steps={done + 250}", **how)
    assert len(np.load(losses)) == done + 250


def help_of(capsys, *options):
    with pytest.raises(SystemExit) as stop:
        fit.main([*options, *([] if "--help" in options else ["--help"])])
    assert stop.value.code == 0
    return capsys.readouterr().out


def test_help_speaks_of_the_chosen_experiment(capsys):
    text = help_of(capsys, "--config", "logistic")
    for words in ("--model.loss {logistic,mse,mse-as-printed}", "--data.digits", "--ckpt_path"):
        assert words in text


def test_help_puts_the_experiment_before_lightning(capsys):
    text = help_of(capsys, "--config", "logistic")
    places = [text.index(word) for word in ("--name", "--model.loss", "--trainer.devices")]
    assert places == sorted(places)
    assert "known subclasses" not in text
    assert all(path.stem in text.replace("-\n", "-") for path in CONFIGS.glob("*.yaml"))


def test_help_is_a_screen_with_examples_and_the_rest_by_section(capsys):
    screen, trainer = help_of(capsys), help_of(capsys, "--config=mse", "--help", "trainer")
    assert "examples:\n  python -m project.fit --config lenet5-modern" in screen
    assert "--trainer.val_check_interval" not in screen
    assert "--help trainer" in screen
    assert "--trainer.val_check_interval" in trainer
    assert "--model.lr" not in trainer
    assert "paramref" not in trainer
    assert len(screen.splitlines()) < 110


@pytest.mark.parametrize("main", [evaluate.main, export.main, predict.main])
def test_help_of_what_does_not_train_says_nothing_of_training(main, capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert "examples:" in text
    for option in ("--model.lr", "--data.batch_size", "--checkpoint_every", "--trainer.max_epochs"):
        assert option not in text
    assert ("--data.root" in text) is (main is not predict.main)


def test_programs_are_listed(capsys):
    programs.main()
    printed = capsys.readouterr().out
    for name in ("fit", "evaluate", "predict", "export", "reproduce", "bench"):
        assert f"python -m project.{name}" in printed


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("--model.lrr=1", "--model.lr"),
        ("--lr=1", "--model.lr"),
        ("--batch-size=3", "--data.batch_size"),
        ("--trainer.max_epohcs=1", "--trainer.max_epochs"),
        ("--figure_s=none", "--figures"),
        ("--epochs=3", "--trainer.max_epochs"),
        ("--learning_rate=0.1", "--model.lr"),
        ("--seed=3", "--seed_everything"),
        ("--ckpt=last", "--ckpt_path"),
        ("--nam=foo", "--name"),
        ("--conf=lenet5-modern", "--config"),
        ("--trainer.max_ep=1", "--trainer.max_epochs"),
        ("--model.class_path=mine.Net", "--model"),
        ("lenet5-modern", "--config lenet5-modern"),
    ],
)
def test_typo_gets_the_nearest_option(typo, meant, tiny, capsys):
    assert refusal(capsys, fit.main, typo).endswith(f"did you mean {meant}?")


@pytest.mark.parametrize("option", ["--optimizer=Adam", "--lr_scheduler.step_size=3"])
def test_optimizers_are_a_model_s(option, tiny, capsys):
    line = refusal(capsys, fit.main, option)
    assert line.endswith("it is what configure_optimizers of a model says: docs/make-it-yours.md.")


@pytest.mark.parametrize(
    ("section", "meant"),
    [("modle: {c3: modern}", "model.c3"), ("model: {l_r: 1}", "model.lr")],
)
def test_typo_in_a_configuration_gets_one_too(section, meant, tiny, capsys):
    Path("my.yaml").write_text(f"experiment: lenet5\n{section}\n")
    assert refusal(capsys, fit.main, "--config=my.yaml").endswith(f"did you mean {meant}?")


@pytest.mark.parametrize("config", ["lenet5-modern-tuned", "logistic", "lenet5-1998"])
def test_printed_configuration_is_commented_and_can_be_used(config, tiny, capsys):
    with pytest.raises(SystemExit) as exit_:
        fit.main([f"--config={config}", "--print_config"])
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    for key in ("  lr:", "  batch_size:", "  max_epochs:", "figures:"):
        (n,) = (n for n, line in enumerate(lines) if line.startswith(key))
        assert lines[n - 1].strip().startswith("# "), key
    assert list(yaml.safe_load(text))[:5] == [
        "experiment",
        "name",
        "seed_everything",
        "model",
        "data",
    ]
    Path("my.yaml").write_text(text)
    with pytest.raises(SystemExit):
        fit.main(["--config=my.yaml", "--print_config"])
    again = yaml.safe_load(capsys.readouterr().out)
    assert again | {"name": None} == yaml.safe_load(text) | {"name": None}


@pytest.mark.slow
def test_configuration_is_utf_8_in_every_locale(tmp_path):
    content = "# für\nexperiment: lenet5\ndata:\n  root: möglich\nmodel:\n  lr: 1e-3\n"
    ascii_ = {"PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}
    for mark in ("", "\ufeff"):
        (tmp_path / "own.yaml").write_text(mark + content, "utf-8")
        done = program("fit", "--config=own.yaml", "--print_config", folder=tmp_path, **ascii_)
        assert done.returncode == 0, done.stderr
        printed = yaml.safe_load(done.stdout.replace("\\xf6", "ö"))
        assert (printed["data"]["root"], printed["model"]["lr"]) == ("möglich", 0.001)


@pytest.mark.slow
def test_shell_completes_the_options_of_the_chosen_experiment(tmp_path):
    line = "python -m project.fit --config logistic --model.d"
    answer = tmp_path / "answer"
    shell = {
        "_ARGCOMPLETE": "3",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
        "_ARGCOMPLETE_IFS": "\n",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
    }
    assert program("fit", **shell).returncode == 0
    assert answer.read_text().split() == ["--model.decay_iterations"]
    for name in ("fit", "evaluate", "predict", "export"):
        assert "PYTHON_ARGCOMPLETE_OK" in (REPOSITORY / f"project/{name}.py").read_text()[:1024]


def last_weights(name):
    newest = max(
        Path("runs").glob(f"{name}/version_*/checkpoints/*.ckpt"),
        key=lambda path: path.stat().st_mtime_ns,
    )
    return torch.load(newest, weights_only=True)


def test_former_experiment_is_today_s_with_its_settings(tiny, capsys):
    """A configuration and a checkpoint of before say lenet5-tuned, and of some settings nothing."""
    text = "experiment: lenet5-tuned\nmodel:\n  lr: 0.02\n  momentum: 0.8\n"
    Path("old.yaml").write_text(text)
    fit.main(["--config=old.yaml", "--trainer.max_epochs=1"])
    (written,) = Path("runs/old").glob("version_0/config.yaml")
    model = yaml.safe_load(written.read_text())["model"]
    settings = {"lr": 0.02, "momentum": 0.8, "nesterov": True, "schedule": "cosine"}
    distortion = {"rotation": 15, "scale": 0.15, "shear": 0.2, "shift": 2}
    defaults = {name: value.default for name, value in signature(LeNet5).parameters.items()}
    assert model == defaults | settings | distortion
    weights = {"state_dict": LeNet5().state_dict(), "config": f"{text}name: old\n"}
    torch.save(weights, "old.ckpt")
    evaluate.main(["--ckpt_path=old.ckpt"])
    assert "old.ckpt" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("first", [1, 3, 5, 6, 7, 9])
@pytest.mark.parametrize("config", ["lenet5-original", "lenet5-original-tuned", "mse"])
def test_stopping_by_max_steps_and_going_on_changes_nothing(config, first, tiny):
    epochs = "--trainer.max_epochs=3"
    options = [*SMALL, epochs] if config.startswith("lenet5") else SMALL_LINEAR
    steps = "--trainer.max_steps="
    fit.main(["--config", config, "--name", "whole", *options, f"{steps}17"])
    fit.main(["--config", config, "--name", "parts", *options, f"{steps}{first}"])
    fit.main(["--name", "parts", "--ckpt_path", "last", f"{steps}17"])
    whole, parts = last_weights("whole"), last_weights("parts")
    assert whole["global_step"] == parts["global_step"] == 17
    assert_same_weights(whole["state_dict"], parts["state_dict"])
    losses = [np.load(f"runs/{name}/version_0/losses.npy") for name in ("whole", "parts")]
    np.testing.assert_array_equal(*losses)


def test_files_of_another_set_are_refused_by_every_program(
    foreign_root, workplace, monkeypatch, capsys
):
    raw = source.raw_folder(foreign_root)
    for path in list(raw.glob("t10k-*")):  # links stay links
        path.symlink_to(path.rename(foreign_root / path.name))
    before = {path: (path.is_symlink(), path.read_bytes()) for path in foreign_root.rglob("*-*")}
    monkeypatch.setenv("MNIST_ROOT", str(foreign_root))
    torch.save({"state_dict": LeNet5().state_dict(), "config": "experiment: lenet5\n"}, "a.ckpt")
    for module, *options in (
        (fit,),
        (fit, "--config=logistic"),
        (evaluate, "--ckpt_path=a.ckpt"),
        (export, "--ckpt_path=a.ckpt"),
        (bench,),
        (reproduce, "mean"),
    ):
        line = refusal(capsys, module.main, *options)
        assert line.startswith(f"error: {raw} holds files that are not MNIST's: train-images-idx3")
        assert "--data.verify false" in line
    after = {path: (path.is_symlink(), path.read_bytes()) for path in foreign_root.rglob("*-*")}
    assert after == before
    assert [path.name for path in workplace.rglob("*") if path.is_file()] == ["a.ckpt"]


def test_another_set_is_learnt_from_tested_and_exported(
    foreign_root, workplace, monkeypatch, capsys
):
    monkeypatch.setenv("MNIST_ROOT", str(foreign_root))
    fit.main(["--data.verify=false", "--data.batch_size=20", "--trainer.max_epochs=1"])
    folder = workplace / "runs/lenet5-original/version_0"
    assert results(folder)["test"]["total"] == 20
    assert len(np.load(folder / "losses.npy")) == 3
    assert capsys.readouterr().out.count("is taken as it is") == 1
    fit.main(["--ckpt_path=last", "--trainer.max_epochs=2"])
    assert len(np.load(folder / "losses.npy")) == 6
    evaluate.main(["--ckpt_path=last", "--json=test.json"])
    assert json.loads(Path("test.json").read_text())["test"]["total"] == 20
    export.main(["--ckpt_path=last", "--format=pt2"])
    assert "On 20 test digits" in capsys.readouterr().out
