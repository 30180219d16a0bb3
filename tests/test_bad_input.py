"""Whatever is wrong with the input: one line that says so, exit code 2, nothing half written."""

from __future__ import annotations

import contextlib
import errno
import gzip
import io
import os
import pickle
import tracemalloc
import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import full_disk, refusal
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import Callback
from PIL import Image

from data import source
from data.idx import parse_idx
from data.images import reading
from models.learners.compiled import Compiled
from models.lenet import LeNet5
from project import evaluate, export, fit, predict
from project.bench import __main__ as bench
from project.doctor import __main__ as doctor
from project.errors import UserError
from project.experiments import STATE, read_checkpoint
from project.recorded_run import RecordedRun
from project.reproduce import __main__ as reproduce


class Malicious:
    """A pickle whose loading writes a file."""

    def __reduce__(self):
        return Path.touch, (Path("owned"),)


def npy(array: np.ndarray) -> bytes:
    """The content of an .npy file."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


CONFIG = "experiment: lenet5\n"
WEIGHTS = LeNet5().state_dict()
GOOD_STATE = {key: {} for key in STATE}

# What lies in the current folder: text, bytes, or what torch.save takes.
FILES = {
    "empty.yaml": "",
    "list.yaml": "- 1\n",
    "nested.yaml": "experiment: [a]\n",
    "model.yaml": "experiment: lenet5-tuned\nmodel: [a]\n",
    "data.yaml": "experiment: lenet5\ndata: 3\n",
    "trainer.yaml": "experiment: lenet5\ntrainer:\n",
    "unknown.yaml": "experiment: lenet6\n",
    "broken.yaml": "experiment: [lenet5\n",
    "latin.yaml": "experiment: lenet5\nname: é\n".encode("latin-1"),
    "number.yaml": CONFIG + "name: 5\n",
    "climbing.yaml": CONFIG + "name: ../up\n",
    "typo.yaml": CONFIG + "modle:\n  c3: modern\n",
    "badvalue.yaml": CONFIG + "model:\n  c3: 3\n",
    "absent.yaml": CONFIG + "ckpt_path: absent.ckpt\n",
    "odd.yaml": CONFIG + "ckpt_path: 3\n",
    "twice.yaml": CONFIG + "model:\n  lr: 1\n  lr: 2\n",
    "tab.yaml": CONFIG + "model:\n\tlr: 1\n",
    "two.yaml": CONFIG + "---\nexperiment: four-nine\n",
    "code.yaml": CONFIG + "model: {lr: !!python/object/apply:os.system [touch owned]}\n",
    "date.yaml": CONFIG + "name: 2026-01-01\n",
    "callback.yaml": CONFIG + "trainer: {callbacks: 5}\n",
    "epochs.yaml": CONFIG + "trainer: {max_epochs: [1]}\n",
    "strings.npy": npy(np.array(["a", "b"])),
    "complex.npy": npy(np.zeros((2, 28, 28), complex)),
    "objects.npy": npy(np.array([{}, {}], object)),
    "none.npy": npy(np.zeros((0, 28, 28))),
    "half.npy": npy(np.zeros((4, 28, 28)))[:300],
    "dates.npy": npy(np.zeros((4, 28, 28), "M8[s]")),
    "deep.yaml": CONFIG + "model: " + "[" * 3000 + "\n",
    "loop.yaml": CONFIG + "model: &a [*a]\n",
    "aliases.yaml": CONFIG
    + "a: &a [x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in pairwise("abcdefghi")),
    "alias.yaml": CONFIG + "model: *nothing\n",
    "keys.yaml": CONFIG + "1: 2\n",
    "wide.yaml": CONFIG.encode("utf-16"),
    "zero.yaml": CONFIG + 'name: "a\\0b"\n',
    "nan.ckpt": {"state_dict": {n: w * torch.nan for n, w in WEIGHTS.items()}, "config": CONFIG},
    "text-weights.ckpt": {"state_dict": WEIGHTS | {"net.c1.weight": "x"}, "config": CONFIG},
    "gone.ckpt": {"state_dict": WEIGHTS, "config": "experiment: gone.Net\n"},
    "no-loops.ckpt": {"state_dict": WEIGHTS, "config": CONFIG, **GOOD_STATE},
    "foreign.ckpt": {"state_dict": WEIGHTS},
    "weights.ckpt": {"state_dict": WEIGHTS, "config": CONFIG},
    "tensor.ckpt": torch.zeros(3),
    "list.ckpt": [1, 2],
    "no-weights.ckpt": {"config": CONFIG},
    "odd-weights.ckpt": {"state_dict": [1], "config": CONFIG},
    "odd-config.ckpt": {"state_dict": WEIGHTS, "config": 5},
    "other-config.ckpt": {"state_dict": WEIGHTS, "config": "experiment: four-nine\n", **GOOD_STATE},
    "fewer.ckpt": {"state_dict": {"net.c1.bias": torch.zeros(6)}, "config": CONFIG, **GOOD_STATE},
    "text.ckpt": "not a checkpoint",
    "empty.ckpt": b"",
    "pickle.ckpt": pickle.dumps(Malicious()),
    "zip.ckpt": Malicious(),
    "picture.png": b"no picture",
}

STOP = ["--trainer.callbacks=EarlyStopping"]
VALIDATED = ["--data.val_size=30"]
OF = ["--ckpt_path=weights.ckpt"]

CASES = {
    "unknown config": (fit, ["--config=logistc"], "did you mean logistic?"),
    "far-off config": (fit, ["--config=resnet"], "there are lenet5-1998"),
    "folder as config": (fit, ["--config=."], "no configuration '.'"),
    "empty config": (fit, ["--config=empty.yaml"], "must have a line `experiment:`"),
    "list as config": (fit, ["--config=list.yaml"], "must have a line `experiment:`"),
    "list as model": (fit, ["--config=model.yaml"], "`model:` must hold options, got ['a']"),
    "number as data": (fit, ["--config=data.yaml"], "`data:` must hold options, got 3"),
    "empty section": (fit, ["--config=trainer.yaml"], "`trainer:` must hold options, got None"),
    "list as experiment": (fit, ["--config=nested.yaml"], "must have a line `experiment:`"),
    "unknown experiment": (fit, ["--config=unknown.yaml"], "must have a line `experiment:`"),
    "broken YAML": (fit, ["--config=broken.yaml"], "is not YAML"),
    "not UTF-8": (fit, ["--config=latin.yaml"], "is not text in UTF-8"),
    "name that is no text": (fit, ["--name=\udce9"], "'\\udce9' cannot be written in utf-8"),
    "number as name": (fit, ["--config=number.yaml"], "name must be text"),
    "climbing name": (fit, ["--config=climbing.yaml"], "without slashes"),
    "climbing --name": (fit, ["--name=../up"], "without slashes"),
    "typo in config": (fit, ["--config=typo.yaml"], "modle"),
    "wrong value in config": (fit, ["--config=badvalue.yaml"], "c3"),
    "unknown key": (fit, ["--model.c4=modern"], "--model.c4"),
    "unknown option": (fit, ["--epochs=3"], "--epochs"),
    "other root": (
        fit,
        ["--trainer.default_root_dir=x"],
        "--name, or start the program in another",
    ),
    "accumulation": (fit, ["--trainer.accumulate_grad_batches=2"], "raise --data.batch_size"),
    "clipping": (fit, ["--trainer.gradient_clip_val=1"], "on_before_optimizer_step of a callback"),
    "barebones": (fit, ["--trainer.barebones=true"], "has no use: switch off"),
    "Lightning's sampler": (
        fit,
        ["--trainer.use_distributed_sampler=false"],
        "has no use: ranks share each mini-batch",
    ),
    "registry": (fit, ["--trainer.model_registry=mine"], "has no use: checkpoints stay on this"),
    "scheduled accumulation": (
        fit,
        [
            "--trainer.callbacks=GradientAccumulationScheduler",
            "--trainer.callbacks.scheduling={0: 2}",
        ],
        "raise --data.batch_size",
    ),
    "checkpoints by the clock": (
        fit,
        [
            "--trainer.callbacks=ModelCheckpoint",
            "--trainer.callbacks.train_time_interval=0:00:03",
        ],
        "there is --checkpoint_minutes",
    ),
    "half a logger": (fit, ["--trainer.logger=CSVLogger"], "CSVLogger needs save_dir."),
    "checkpoint of a file": (fit, ["--config=absent.yaml"], "there is no checkpoint absent.ckpt"),
    "odd checkpoint": (fit, ["--config=odd.yaml"], "`ckpt_path:` must be a path or last, got 3"),
    "stray word": (fit, ["lenet5-modern"], "lenet5-modern"),
    "choice": (fit, ["--model.c3=moden"], "Expected a typing.Literal['original', 'modern']"),
    "number": (fit, ["--data.batch_size=many"], "data.batch_size"),
    "batch size 0": (fit, ["--data.batch_size=0"], "batch_size must be 1 or more, got 0"),
    "batch size below 0": (fit, ["--data.batch_size=-5"], "batch_size must be 1 or more"),
    "batch without end": (fit, [f"--data.batch_size={10**20}"], "batch_size must be at most 9223"),
    "half a batch": (fit, ["--data.batch_size=1.5"], "data.batch_size"),
    "block size": (fit, ["--data.block_size=0"], "block_size must be 1 or more"),
    "eval size": (fit, ["--data.eval_batch_size=0"], "eval_batch_size must be 1 or more"),
    "learning rate below 0": (fit, ["--model.lr=-1"], "lr must be above 0"),
    "learning rate 0": (fit, ["--model.lr=0"], "lr must be above 0"),
    "learning rate nan": (fit, ["--model.lr=.nan"], "lr must be above 0"),
    "learning rate without end": (fit, ["--model.lr=.inf"], "lr must be above 0, and finite, got"),
    "backend": (fit, ["--model.backend=fast"], "model.backend"),
    "same digits": (fit, ["--config=mse", "--data.digits=[4,4]"], "digits must be two different"),
    "digit 10": (fit, ["--config=mse", "--data.digits=[4,10]"], "digits must be two different"),
    "one digit": (fit, ["--config=mse", "--data.digits=[4]"], "data.digits"),
    "iterations": (fit, ["--config=mse", "--data.iterations=0"], "iterations must be 1 or more"),
    "iterations without end": (
        fit,
        ["--config=mse", f"--data.iterations={10**20}"],
        "iterations must be at most 9223",
    ),
    "loss": (fit, ["--config=mse", "--model.loss=hinge"], "model.loss"),
    "scale": (fit, ["--config=mse", "--model.scale=-1"], "scale must be above 0"),
    "scale without end": (fit, ["--config=mse", "--model.scale=.inf"], "scale must be above 0"),
    "decay": (
        fit,
        ["--config=mse", "--model.decay_iterations=0"],
        "decay_iterations must be 1 or more",
    ),
    "LeNet's key for mse": (fit, ["--config=mse", "--model.c3=modern"], "c3"),
    "momentum": (fit, ["--config=lenet5-original-tuned", "--model.momentum=1"], "momentum must be"),
    "shift": (
        fit,
        ["--config=lenet5-original-tuned", "--model.shift=-1"],
        "shift must be from 0 to 1000",
    ),
    "no teachers": (fit, ["--model.teachers=runs/nobody-*"], "no checkpoint at teachers 'runs/no"),
    "no last epoch": (
        fit,
        ["--config=lenet5-original-tuned", "--trainer.max_epochs=-1"],
        "set --trainer.max_epochs",
    ),
    "no last epoch of one cycle": (
        fit,
        ["--model.schedule=one-cycle", "--trainer.max_epochs=-1"],
        "set --trainer.max_epochs",
    ),
    "another experiment": (fit, ["--experiment=four-nine"], "the experiment is lenet5"),
    "val_size": (fit, ["--data.val_size=130"], "val_size must be below 130"),
    "val_size below 0": (fit, ["--data.val_size=-1"], "val_size must be 0 or more"),
    "seed below 0": (fit, ["--seed_everything=-1"], "--seed_everything must be between 0"),
    "seed of 33 bits": (fit, ["--seed_everything=4294967296"], "--seed_everything must be"),
    "seed": (fit, ["--seed_everything=lucky"], "seed_everything"),
    "epochs": (fit, ["--trainer.max_epochs=few"], "trainer.max_epochs"),
    "accelerator": (fit, ["--trainer.accelerator=abacus"], "abacus"),
    "devices": (fit, ["--trainer.devices=0"], "devices"),
    "precision": (fit, ["--trainer.precision=7"], "precision"),
    "checkpoint_every": (fit, ["--checkpoint_every=0"], "checkpoint_every"),
    "ranks of a linear model": (
        fit,
        [
            *("--config=mse", "--trainer.devices=2", "--trainer.strategy=ddp"),
            "--trainer.accelerator=cpu",
        ],
        "2 ranks cannot share mini-batches of 1",
    ),
    "metric that is none": (
        fit,
        [*STOP, "--trainer.callbacks.monitor=train/lss", *VALIDATED],
        "EarlyStopping waits for 'train/lss', which is not measured; there are epoch, step, train/",
    ),
    "metric of no validation": (
        fit,
        [*STOP, "--trainer.callbacks.monitor=val/loss"],
        "there are epoch, step, train/loss; --data.val_size N adds val/loss and val/accuracy",
    ),
    "metric of a validation that is off": (
        fit,
        [
            *STOP,
            "--trainer.callbacks.monitor=val/loss",
            *VALIDATED,
            "--trainer.limit_val_batches=0",
        ],
        "EarlyStopping waits for 'val/loss'",
    ),
    "metric of a checkpoint": (
        fit,
        ["--trainer.callbacks=ModelCheckpoint", "--trainer.callbacks.monitor=val_loss", *VALIDATED],
        "ModelCheckpoint waits for 'val_loss'",
    ),
    "devices below 0": (fit, ["--trainer.devices=-5"], "a number above 0"),
    "part of a device": (fit, ["--trainer.devices=1.5"], "of GPUs also -1"),
    "epochs below -1": (fit, ["--trainer.max_epochs=-2"], "-1. You passed in -2"),
    "share above 1": (fit, ["--trainer.limit_train_batches=1.5"], "it has to be in [0.0, 1.0]"),
    "validation all the time": (
        fit,
        ["--trainer.val_check_interval=0", *VALIDATED],
        "val_check_interval must be above 0; --trainer.limit_val_batches 0",
    ),
    "callback that is none": (
        fit,
        ["--trainer.callbacks=Nonsense"],
        "error: trainer.callbacks: there is no class Nonsense to import.",
    ),
    "number as callback": (fit, ["--config=callback.yaml"], "trainer.callbacks cannot be 5: Ex"),
    "callback without what it needs": (fit, [*STOP], "EarlyStopping needs monitor"),
    "callback's argument": (
        fit,
        ["--trainer.callbacks=ModelCheckpoint", "--trainer.callbacks.save_top_k=-3"],
        "error: Invalid value for save_top_k=-3",
    ),
    "callback that YAML does not know": (
        fit,
        ["--trainer.callbacks=Timer", "--trainer.callbacks.duration=00:00:01:00"],
        "there is --trainer.max_time",
    ),
    "callback for a backbone": (
        fit,
        ["--trainer.callbacks=BackboneFinetuning"],
        "freezes the module `backbone` of a model; LeNet5 has none",
    ),
    "logger that is none": (fit, ["--trainer.logger=Nonsense"], "no class Nonsense to import"),
    "minutes below 0": (
        fit,
        ["--checkpoint_minutes=-1"],
        "checkpoint_minutes cannot be -1: Not",
    ),
    "half a seed": (
        fit,
        ["--seed_everything=1.5"],
        "seed_everything cannot be 1.5: Expected",
    ),
    "clipping by what": (fit, ["--trainer.gradient_clip_algorithm=norm"], "has no use: clip in"),
    "key twice": (fit, ["--config=twice.yaml"], "is not YAML: 'lr' stands there twice"),
    "tab": (fit, ["--config=tab.yaml"], "is not YAML"),
    "two documents": (fit, ["--config=two.yaml"], "expected a single document"),
    "code in YAML": (fit, ["--config=code.yaml"], "is not YAML"),
    "date as name": (fit, ["--config=date.yaml"], "a run's name must be text"),
    "epochs in YAML": (fit, ["--config=epochs.yaml"], "trainer.max_epochs cannot be [1]"),
    "folder as YAML": (fit, ["--config=runs"], "no configuration 'runs'"),
    "file as data": (fit, ["--data.root=picture.png"], "picture.png is a file; name the folder"),
    "size": (fit, ["--data.size=[0, 28]"], "size must be 1 or more, got 0"),
    "two names": (fit, ["--name=a", "--name=b"], "--name can be given once, got a and b"),
    "two checkpoints": (fit, ["--ckpt_path=a", "--ckpt_path=b"], "--ckpt_path can be given once"),
    "two models": (fit, ["--model=a.B", "--model=c.D"], "--model can be given once"),
    "no path": (fit, ["--ckpt_path="], "a path is empty"),
    "no loops": (fit, ["--ckpt_path=no-loops.ckpt"], "no state of a training to go on from"),
    "data elsewhere": (fit, ["--data.root=nowhere"], "nowhere"),
    "missing checkpoint": (fit, ["--ckpt_path=no.ckpt"], "there is no checkpoint no.ckpt"),
    "nothing to continue": (fit, ["--ckpt_path=last"], "there is no checkpoint to continue"),
    "YAML as checkpoint": (fit, ["--ckpt_path=empty.yaml"], "is not a checkpoint"),
    "no configuration": (fit, ["--ckpt_path=foreign.ckpt"], "holds no configuration"),
    "another model": (fit, ["--ckpt_path=foreign.ckpt", "--config=mse"], "of another model"),
    "another config": (fit, ["--ckpt_path=other-config.ckpt"], "of another model"),
    "missing weights": (fit, ["--ckpt_path=fewer.ckpt"], "of another model"),
    "only weights": (fit, ["--ckpt_path=weights.ckpt"], "no state of a training to go on from"),
    "tensor": (fit, ["--ckpt_path=tensor.ckpt"], "is not a checkpoint"),
    "list": (fit, ["--ckpt_path=list.ckpt"], "is not a checkpoint"),
    "no weights": (fit, ["--ckpt_path=no-weights.ckpt"], "is not a checkpoint"),
    "odd weights": (fit, ["--ckpt_path=odd-weights.ckpt"], "is not a checkpoint"),
    "odd config": (fit, ["--ckpt_path=odd-config.ckpt"], "must have a line `experiment:`"),
    "text as checkpoint": (fit, ["--ckpt_path=text.ckpt"], "is not a checkpoint"),
    "empty checkpoint": (fit, ["--ckpt_path=empty.ckpt"], "is not a checkpoint"),
    "pickle": (fit, ["--ckpt_path=pickle.ckpt"], "is not a checkpoint"),
    "zipped pickle": (fit, ["--ckpt_path=zip.ckpt"], "is not a checkpoint"),
    "evaluate: nothing": (evaluate, [], "say which checkpoint to test: --ckpt_path"),
    "evaluate: pickle": (evaluate, ["--ckpt_path=zip.ckpt"], "is not a checkpoint"),
    "evaluate: missing": (evaluate, ["--ckpt_path=no.ckpt"], "there is no checkpoint"),
    "evaluate: two": (evaluate, ["--ckpt_path=a", "--ckpt_path=b"], "can be given once, got a and"),
    "evaluate: weights that are no numbers": (evaluate, ["--ckpt_path=nan.ckpt"], "no numbers"),
    "evaluate: weights that are text": (
        evaluate,
        ["--ckpt_path=text-weights.ckpt"],
        "of another model",
    ),
    "evaluate: model that is gone": (evaluate, ["--ckpt_path=gone.ckpt"], "No module named 'gone'"),
    "evaluate: folder to write": (
        evaluate,
        ["--ckpt_path=weights.ckpt", "--json=."],
        "is a folder; name a file in it",
    ),
    "predict: strings": (predict, [*OF, "strings.npy"], "holds no images, but <U1"),
    "predict: complex": (predict, [*OF, "complex.npy"], "holds no images, but complex128"),
    "predict: objects": (predict, [*OF, "objects.npy"], "is a damaged NumPy file"),
    "predict: empty": (predict, [*OF, "none.npy"], "holds no images"),
    "predict: no name": (predict, [*OF, ""], "a path is empty"),
    "predict: folder to write": (predict, [*OF, "--output=.", "picture.png"], "name a file in it"),
    "predict: file to fill": (
        predict,
        [*OF, "--show=picture.png", "picture.png"],
        "picture.png is a file; name a folder",
    ),
    "export: below a file": (
        export,
        [*OF, "--output=picture.png/a.onnx"],
        "cannot be written, since picture.png is a file",
    ),
    "predict: nothing": (predict, ["picture.png"], "say which model to use: --ckpt_path"),
    "predict: no images": (predict, ["--ckpt_path=weights.ckpt"], "images"),
    "predict: no picture": (predict, ["--ckpt_path=weights.ckpt", "picture.png"], "not an image"),
    "predict: format": (
        predict,
        ["--ckpt_path=weights.ckpt", "--format=xml", "picture.png"],
        "format",
    ),
    "predict: pickle": (predict, ["--ckpt_path=pickle.ckpt", "a.png"], "is not a checkpoint"),
    "export: nothing": (export, [], "say which model to export: --ckpt_path"),
    "bench: repeats": (bench, ["--repeats=0"], "--repeats must be 1 or more"),
    "bench: question": (bench, ["speed"], "invalid choice"),
    "bench: batches": (bench, ["kernel", "--batches", "0"], "--batches must be 1 or more"),
    "bench: below a file": (bench, ["--json=picture.png/a"], "since picture.png is a file"),
    "bench: folder to write": (bench, ["--json=runs"], "runs is a folder; name a file in it"),
    "bench: no name": (bench, ["--png="], "a path is empty"),
    "bench: figure": (bench, ["kernel", "--png=a.png"], "--png is for fit and race, not for"),
    "bench: experiment": (bench, ["race", "--only=mse"], "--only is for fit, not for race"),
    "bench: sizes": (bench, ["--batches", "9"], "iteration and kernel and scaling, not for fit"),
    "bench: net": (bench, ["scaling", "--c3=modern"], "--c3 is for iteration and race, not for"),
    "reproduce: runs": (reproduce, ["table1", "--runs=0"], "must be 1 or more, got 0"),
    "reproduce: seed": (reproduce, ["--seed=-1"], "must be 0 or more, got -1"),
    "reproduce: part": (
        reproduce,
        ["lenett"],
        "there is no part 'lenett'; there are differences, mean",
    ),
    "reproduce: problem": (reproduce, ["--only", "8"], "there is no part '8'"),
    "reproduce: folder": (
        reproduce,
        ["mean", "--out=picture.png"],
        "picture.png is a file; name a folder",
    ),
    "reproduce: below a file": (
        reproduce,
        ["mean", "--out=picture.png/a"],
        "picture.png/a cannot be written, since picture.png is a file",
    ),
    "reproduce: publish": (reproduce, ["mean", "--publish=pipe"], "pipe is a file; name a folder"),
    "reproduce: no name": (reproduce, ["mean", "--out="], "a path is empty"),
    "doctor: folder to write": (doctor, ["--json=runs"], "runs is a folder; name a file in it"),
    "doctor: no name": (doctor, ["--json="], "a path is empty"),
    "deep YAML": (fit, ["--config=deep.yaml"], "deep.yaml is nested too deeply"),
    "YAML of itself": (fit, ["--config=loop.yaml"], "`model:` must hold options, got [[...]]"),
    "YAML of aliases": (fit, ["--config=aliases.yaml"], "aliases.yaml repeats itself too often"),
    "YAML of nothing": (fit, ["--config=alias.yaml"], "undefined alias 'nothing'"),
    "number as key": (fit, ["--config=keys.yaml"], "Key must be a string, got: 1"),
    "UTF-16": (fit, ["--config=wide.yaml"], "is not text in UTF-8"),
    "name with a zero": (fit, ["--config=zero.yaml"], "no folder can be called 'a\\x00b'"),
    "path with a zero": (fit, ["--ckpt_path=a\0b"], "can be called 'a\\x00b'"),
    "empty name": (fit, ["--name="], "a run's name must be text without slashes, got ''"),
    "pipe as checkpoint": (evaluate, ["--ckpt_path=pipe"], "there is no checkpoint pipe"),
    "evaluate: no name": (evaluate, [*OF, "--json="], "a path is empty"),
    "export: no name": (export, [*OF, "--output="], "a path is empty"),
    "predict: pipe": (predict, [*OF, "pipe"], "pipe is no file, but a pipe or a device"),
    "predict: pipe to fill": (predict, [*OF, "--show=pipe", "a.png"], "pipe is a file; name a"),
    "predict: half an array": (predict, [*OF, "half.npy"], "is a damaged NumPy file"),
    "predict: dates": (predict, [*OF, "dates.npy"], "holds no images, but datetime64"),
}


@pytest.fixture
def place(tiny, monkeypatch):
    """The current folder with the files, and the tiny data set."""
    for name, content in FILES.items():
        path = tiny / name
        if isinstance(content, str):
            path.write_text(content)
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path)
    (tiny / "runs").mkdir(exist_ok=True)
    os.mkfifo(tiny / "pipe")
    monkeypatch.setattr(source, "_sources", lambda: [])  # no network
    return tiny


@pytest.mark.parametrize("case", CASES)
def test_one_line_and_exit_code_2(case, place, capsys):
    program, arguments, words = CASES[case]
    assert words in refusal(capsys, program.main, *arguments)
    left = {path.name for path in place.iterdir()} - FILES.keys()
    assert left <= {"runs", "reports", "pipe"}, "no code of a checkpoint runs, nothing half written"
    assert not list(place.rglob("results.json"))


UNUSED = {
    evaluate: ("checkpoint_every=5", "figures=none", "model.lr=1", "trainer.logger.save_dir=a"),
    predict: ("checkpoint_minutes=5", "data.root=a", "trainer.limit_predict_batches=1"),
    export: ("data.batch_size=5", "trainer.precision=16-mixed", "model.backend=reference"),
}


@pytest.mark.parametrize(
    ("program", "option"), [(program, option) for program in UNUSED for option in UNUSED[program]]
)
def test_what_would_be_ignored_is_refused(program, option, place, capsys):
    line = refusal(capsys, program.main, f"--{option}", *OF, *["a"] * (program is predict))
    name = program.__name__
    assert line == f"error: --{option.split('=')[0]} decides nothing in {name}: leave it out."


def test_damaged_checkpoints_are_left_out_of_last(place, capsys):
    options = ["--data.batch_size=20", "--trainer.max_epochs=2"]
    fit.main([*options, "--trainer.limit_test_batches=1"])
    older, newest = sorted(
        (place / "runs/lenet5-original/version_0/checkpoints").iterdir(),
        key=lambda path: path.stat().st_mtime_ns,
    )
    newest.write_bytes(newest.read_bytes()[:1000])
    capsys.readouterr()
    evaluate.main(["--ckpt_path=last"])
    assert f"Left out: {newest.relative_to(place)}" in capsys.readouterr().err
    older.write_bytes(b"")
    with pytest.raises(SystemExit):
        evaluate.main(["--ckpt_path=last"])


def test_loss_that_is_no_number_stops_the_run(place, capsys):
    with pytest.raises(SystemExit) as stop:
        fit.main(
            ["--model.lr=1e38", "--data.batch_size=20", "--data.block_size=2", "--figures=none"]
        )
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "error: the loss is nan at iteration" in error
    assert "training images" in error
    assert "Last good checkpoint: none yet" in error


LATE = {
    "validation after the end": (["--trainer.val_check_interval=100"], "(100) must be less than"),
    "metric that no callback logs": (
        [*STOP, "--trainer.callbacks.monitor=unheard", "--trainer.callbacks+=test_bad_input.Mute"],
        "conditioned on metric `unheard` which is not available",
    ),
}


class Mute(Callback):
    """May log a metric, as far as the program knows."""


@pytest.mark.parametrize(("options", "words"), LATE.values(), ids=LATE)
def test_what_lightning_refuses_later_gets_one_line_too(options, words, place, capsys):
    common = ["--data.batch_size=20", "--figures=none", *VALIDATED]
    assert words in refusal(capsys, fit.main, *common, *options)


def test_early_stopping_may_wait_for_any_metric(place):
    options = ["--data.batch_size=20", "--figures=none", "--trainer.max_epochs=1", *VALIDATED]
    cli = RecordedRun(options, "")
    cli.trainer.fit(cli.model, datamodule=cli.datamodule)
    logged = set(cli.trainer.callback_metrics)
    assert logged == {"step", "train/loss", *(f"val/{name}" for name in fit.METRICS)}
    for monitor in logged:
        fit.main([*options, *STOP, f"--trainer.callbacks.monitor={monitor}"])


def test_full_disk_stops_the_run_and_leaves_the_checkpoints(place, capsys):
    options = ["--data.batch_size=20", "--trainer.max_epochs=1", "--figures=none"]
    fit.main(options)
    before = {path: path.read_bytes() for path in place.rglob("*.ckpt")}
    with full_disk(100_000):
        line = refusal(capsys, fit.main, "--ckpt_path=last", "--trainer.max_epochs=2")
    assert "File too large; the checkpoints before this one are whole" in line
    assert before == {path: path.read_bytes() for path in place.rglob("*.ckpt")}
    assert not list(place.rglob("*.tmp"))
    fit.main(["--ckpt_path=last", "--trainer.max_epochs=2"])


def test_lost_rank_is_told_in_one_line(place, monkeypatch, capsys):
    def lose(*_):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer [::1]:5")

    monkeypatch.setattr(Compiled, "__call__", lose)
    options = ["--data.batch_size=20", "--figures=none", "--trainer.accelerator=cpu"]
    line = refusal(capsys, fit.main, *options)
    assert line == "error: another rank has ended; what it printed says why."


def test_folder_that_takes_no_files_is_refused_before_training(place, monkeypatch, capsys):
    def mkdir(path, *args, **options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(os, "mkdir", mkdir)
    monkeypatch.setattr(LeNet5, "on_train_start", lambda self: pytest.fail("it trains"))
    assert "Read-only file system" in refusal(capsys, fit.main, "--data.batch_size=20")


def test_file_that_no_folder_takes_is_refused_before_the_work(place, monkeypatch, capsys):
    (place / "locked").mkdir()
    access = os.access
    monkeypatch.setattr(
        os, "access", lambda path, *mode: Path(path).name != "locked" and access(path, *mode)
    )
    for program, arguments in (
        (bench, ["iteration", "--json=locked/new/a.json"]),
        (doctor, ["--json=locked/a.json"]),
        (evaluate, [*OF, "--json=locked/a.json"]),
        (export, [*OF, "--output=locked/a.onnx"]),
        (predict, [*OF, "--show=locked", "picture.png"]),
        (reproduce, ["--out=locked/reports"]),
    ):
        assert "locked takes no files" in refusal(capsys, program.main, *arguments)
    assert not list((place / "locked").iterdir())


@settings(deadline=None, max_examples=300)
@given(content=st.binary(max_size=64), dimensions=st.integers(1, 4))
def test_any_bytes_are_an_idx_file_or_refused(content, dimensions):
    for start in (b"", bytes([0, 0, 8, dimensions])):
        whole = start + content
        try:
            tensor = parse_idx(whole, dimensions)
        except ValueError:
            continue
        assert tensor.numel() == len(whole) - 4 - 4 * dimensions


@settings(deadline=None, max_examples=200)
@given(
    sizes=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=4), body=st.binary(max_size=9)
)
def test_sizes_in_an_idx_header_allocate_nothing(sizes, body):
    header = bytes([0, 0, 8, len(sizes)]) + b"".join(size.to_bytes(4, "big") for size in sizes)
    tracemalloc.start()
    try:
        tensor = parse_idx(header + body, len(sizes))
    except ValueError:
        pass
    else:
        assert list(tensor.shape) == sizes
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 1_000_000


@settings(deadline=None, max_examples=100)
@given(content=st.binary(max_size=200), start=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"BM"]))
def test_any_bytes_are_a_picture_or_refused(content, start, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "any.png"
    for whole in (start + content, gzip.compress(start + content)):
        path.write_bytes(whole)
        content = reading.read([path])
        assert len(content.digits) + len(content.refused) == 1


@settings(deadline=None, max_examples=300)
@given(
    values=st.lists(
        st.floats(width=32) | st.sampled_from([0.0, 1.0, 255.0]), min_size=25, max_size=25
    )
)
def test_any_numbers_are_a_picture_of_a_digit_or_refused(values, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "any.tif"
    Image.fromarray(np.float32(values).reshape(5, 5)).save(path)
    content = reading.read([path])
    if np.isfinite(values).all():
        (digit,) = content.digits
        assert digit.pixels.max() == 255 or digit.reason == "no ink"
    else:
        (error,) = content.refused
        assert "infinite or no numbers" in str(error)


@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_any_damage_to_a_checkpoint_is_refused_or_harmless(data, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "damaged.ckpt"
    torch.save({"state_dict": {"a": torch.zeros(2)}, "config": CONFIG}, path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with contextlib.suppress(UserError), warnings.catch_warnings():
        warnings.simplefilter("error")  # the line that the user gets is the only one
        read_checkpoint(path)
