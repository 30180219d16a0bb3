"""One's own data and models, from the command line and in Python."""

from __future__ import annotations

import importlib
import itertools
import json
import re
import runpy
import shlex
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
import yaml
from helpers import REPOSITORY, idx, refusal
from PIL import Image, ImageDraw

from data import MNISTDataModule, source
from models.lenet import LeNet5
from project import evaluate, export, fit, predict

pytestmark = pytest.mark.filterwarnings("ignore")

SHORT = ["--figures=none", "--data.batch_size=20", "--trainer.max_epochs=6", "--data.verify=false"]


def patterns(root, labels, train=600, test=100, size=(28, 28)):
    """A set in MNIST's layout whose every class is a pattern of its own, with noise."""
    random = np.random.default_rng(0)
    rows, columns = (np.arange(count) * 7 // count for count in size)
    shapes = 200 * random.integers(0, 2, (len(labels), 7, 7))[:, rows][:, :, columns]
    folder = source.raw_folder(root)
    folder.mkdir(parents=True)
    for half, count in (("train", train), ("t10k", test)):
        classes = random.permutation(np.arange(count) % len(labels))
        images = shapes[classes] + random.integers(0, 56, (count, *size))
        values = torch.tensor(labels, dtype=torch.uint8)[torch.from_numpy(classes)]
        (folder / f"{half}-images-idx3-ubyte").write_bytes(idx(torch.tensor(images).byte()))
        (folder / f"{half}-labels-idx1-ubyte").write_bytes(idx(values))
    return root


class Plain(LeNet5):
    """One whose __init__ takes nothing."""

    def __init__(self):
        super().__init__(lr=0.3)


class Bars(MNISTDataModule):
    """Data of which the same is true: each class has a bar in a place of its own."""

    seeds: ClassVar[list[int]] = []

    def __init__(self):
        super().__init__(batch_size=10, val_size=20)

    def prepare_data(self):
        self.seeds.append(self.seed)

    def load(self, *, train):
        classes = torch.arange(100) % 10
        rows = 255 * torch.eye(14, dtype=torch.uint8).repeat_interleave(2, 1)
        return rows[classes].unsqueeze(2).expand(100, 28, 28).contiguous(), classes


PAIRS = {"BOTH": (Plain, Bars), "DATA": (LeNet5, Bars)}
globals().update(PAIRS)


def test_a_model_without_options_is_trained_and_used(workplace):
    patterns(workplace / "set", range(10))
    fit.main(["--model=test_own.Plain", *SHORT, "--data.root=set"])
    (results,) = Path("runs").glob("*/version_0/results.json")
    assert json.loads(results.read_text())["test"]["accuracy"] > 0.9
    evaluate.main(["--ckpt_path=last"])


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("way", ["model", "config"])
def test_data_without_options_are_learnt_from_with_the_seed_of_the_run(pair, way, workplace):
    Path("pair.yaml").write_text(f"experiment: test_own.{pair}\nname: {pair}\n")
    asked = {"model": f"--model=test_own.{pair}", "config": "--config=pair.yaml"}[way]
    Bars.seeds.clear()
    fit.main([asked, "--figures=none", "--trainer.max_epochs=20", "--seed_everything=3"])
    assert {*Bars.seeds} == {3}
    record = json.loads(Path(f"runs/{pair}/version_0/results.json").read_text())
    assert record["test"]["accuracy"] == record["validation"]["accuracy"] == 1
    evaluate.main(["--ckpt_path=best"])


@pytest.mark.parametrize(("section", "key"), [("data", "batch_size"), ("model", "lr")])
def test_options_that_a_class_of_one_s_own_does_not_take_are_refused(
    section, key, workplace, capsys
):
    typed = f"--{section}.{key}=20"
    line = refusal(capsys, fit.main, "--model=test_own.BOTH", typed)
    assert f"unrecognized arguments: {typed}" in line
    Path("pair.yaml").write_text(f"experiment: test_own.BOTH\n{section}: {{{key}: 20}}\n")
    refused = f"Group '{section}' does not accept option '{key}'; --help lists the options."
    assert refused in refusal(capsys, fit.main, "--config=pair.yaml")


@pytest.mark.parametrize(
    "labels", [range(10), range(1, 27), range(47), (3, 5, 200)], ids=["ten", "letters", "47", "3"]
)
def test_a_set_has_the_classes_of_its_files(labels, workplace, capsys):
    root = patterns(workplace / "set", list(labels))
    fit.main([*SHORT, f"--data.root={root}", "--name=own", "--model.lr=0.3"])
    (folder,) = Path("runs/own").glob("version_*")
    record = json.loads((folder / "results.json").read_text())
    assert record["test"]["accuracy"] > 0.9
    assert len(record["test"]["confusion"]) == len(labels)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["model"]["classes"] == len(labels)
    assert config["data"]["digits"] == list(labels)
    capsys.readouterr()
    evaluate.main(["--ckpt_path=last"])
    assert f"│ {max(labels)} " in capsys.readouterr().out
    predict.main(["--ckpt_path=last", str(source.raw_folder(root) / "t10k-images-idx3-ubyte")])
    header, *lines = capsys.readouterr().out.splitlines()
    assert not any("unsure" in line for line in lines)
    assert header == "image,ink,label," + ",".join(f"p{label}" for label in labels) + ",reason"
    truth = source.load(root, train=False, verify=False, known=labels)[1].tolist()
    right = [line.split(",")[2] == str(label) for line, label in zip(lines, truth, strict=True)]
    assert sum(right) / len(right) > 0.9


@pytest.mark.parametrize("size", [(16, 16), (32, 32), (64, 40)], ids=str)
def test_images_of_any_size_are_scaled_wherever_they_are_read(size, workplace, capsys):
    root = patterns(workplace / "set", range(10), size=size)
    fit.main([*SHORT, f"--data.root={root}", "--name=own", "--model.lr=0.3"])
    height, width = size
    said = f"Images of {height}x{width} pixels are scaled to fit 28x28."
    assert capsys.readouterr().out.count(said) == 1
    config = yaml.safe_load(Path("runs/own/version_0/config.yaml").read_text())
    assert config["data"]["size"] == list(size)
    evaluate.main(["--ckpt_path=last", "--json=test.json"])
    assert json.loads(Path("test.json").read_text())["test"]["accuracy"] > 0.9
    assert said in capsys.readouterr().out
    predict.main(["--ckpt_path=last", str(source.raw_folder(root) / "t10k-images-idx3-ubyte")])
    lines = capsys.readouterr().out.splitlines()[1:]
    truth = source.load(root, train=False, verify=False, size=size)[1].tolist()
    right = [line.split(",")[2] == str(label) for line, label in zip(lines, truth, strict=True)]
    assert sum(right) / len(right) > 0.9
    export.main(["--ckpt_path=last", "--format=pt2"])
    assert "images (B, 1, 28, 28)" in capsys.readouterr().out
    other = patterns(workplace / "other", range(10), size=(20, 20))
    line = refusal(capsys, evaluate.main, "--ckpt_path=last", f"--data.root={other}")
    assert f"holds 600 images of 20x20, expected {height}x{width}" in line


@pytest.mark.parametrize("config", ["lenet5-1998", "logistic"])
def test_every_experiment_takes_images_of_another_size(config, workplace):
    root = patterns(workplace / "set", range(10), size=(10, 20))
    steps = ["--trainer.max_steps=2", "--data.verify=false", "--figures=none"]
    fit.main([f"--config={config}", *steps, f"--data.root={root}"])
    evaluate.main(["--ckpt_path=last", "--json=test.json"])
    assert json.loads(Path("test.json").read_text())["test"]["total"] in (20, 100)


def test_labels_that_were_not_expected_are_named(workplace, capsys):
    root = patterns(workplace / "set", range(12))
    options = [*SHORT, f"--data.root={root}"]
    assert "expected 0 to 1, in" in refusal(capsys, fit.main, *options, "--data.digits=[0, 1]")
    assert "2 or more" in refusal(capsys, fit.main, *options, "--model.classes=1")
    assert "12 classes" in refusal(capsys, fit.main, *options, "--model.classes=5")
    assert "two or more different" in refusal(capsys, fit.main, *options, "--data.digits=[1, 1]")


PAGE = (REPOSITORY / "docs/make-it-yours.md").read_text(encoding="utf-8")
FILES = re.findall(r"^```(?:python|yaml)\n# (\S+)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
COMMANDS = [
    line
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
]


@pytest.fixture
def place(tiny, tiny_root, monkeypatch):
    """The page's files, and pictures by class, in a folder that is not the checkout."""
    for name, content in FILES:
        Path(name).write_text(content)
    for half, digit in itertools.product(("train", "test"), "01"):
        folder = Path("pictures", half, digit)
        folder.mkdir(parents=True)
        for number in range(2):
            picture = Image.new("L", (40, 40), 255)
            ImageDraw.Draw(picture).line([(20, 5), (20 + 15 * int(digit), 35)], 0, 3 + number)
            picture.save(folder / f"{number}.png")
    monkeypatch.syspath_prepend(str(tiny))
    yield tiny
    for name, _ in FILES:
        sys.modules.pop(Path(name).stem, None)


def test_every_command_of_the_page_runs(place, capsys):
    assert len(COMMANDS) > 10
    for command in COMMANDS:
        _, _, program, *options = shlex.split(command)
        main = importlib.import_module(program).main
        is_short = "--help" in options or "--print_config" in options
        if program == "project.fit" and not is_short:
            options += ["--figures=none", "--trainer.max_steps=4"]
        with pytest.raises(SystemExit) if is_short else nullcontext():
            main(options)
    assert "--model.hidden" in capsys.readouterr().out
    runs = {path.parent.parent.name for path in Path("runs").glob("*/*/results.json")}
    assert runs >= {"Smooth", "Dropout", "Net", "smooth", "BRIGHT", "PICTURES"}


def test_the_script_of_the_page_runs(place, capsys):
    runpy.run_path("script.py")
    assert "tensor(" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("mien.Net", "mien cannot be imported: No module named 'mien'; modules are looked for in"),
        ("mine.Nte", "has no Nte; did you mean mine.Net?"),
        ("mine.torch", "must be a class derived from models.classifier.Classifier, or a pair"),
        ("broken.Net", "broken cannot be imported: SyntaxError"),
    ],
)
def test_what_cannot_be_an_experiment_is_refused(model, words, place, capsys):
    Path("broken.py").write_text("class Net(:\n")
    assert words in refusal(capsys, fit.main, f"--model={model}")


def test_what_a_loss_of_one_s_own_does_is_what_a_step_does(place):
    """Twice the loss at half the rate is the same training."""
    Path("twice.py").write_text(
        "from models.lenet import LeNet5\n\n\nclass Twice(LeNet5):\n"
        "    def losses(self, outputs, labels):\n"
        "        return 2 * super().losses(outputs, labels)\n"
    )
    short = ["--figures=none", "--trainer.max_epochs=3", "--data.batch_size=20"]
    fit.main([*short, "--model=twice.Twice", "--model.lr=0.05"])
    fit.main(short)
    losses = [np.load(f"runs/{name}/version_0/losses.npy") for name in ("Twice", "lenet5-original")]
    np.testing.assert_allclose(losses[0], 2 * losses[1], rtol=1e-4)
