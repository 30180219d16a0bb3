"""One's own data and models, from the command line and in Python."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from helpers import idx, refusal

from data import source
from project import evaluate, fit, predict

pytestmark = pytest.mark.filterwarnings("ignore")

SHORT = ["--figures=none", "--data.batch_size=20", "--trainer.max_epochs=6", "--data.verify=false"]


def patterns(root, labels, train=600, test=100):
    """A set in MNIST's layout whose every class is a pattern of its own, with noise."""
    random = np.random.default_rng(0)
    shapes = np.kron(random.integers(0, 2, (len(labels), 7, 7)), np.ones((4, 4))) * 200
    folder = source.raw_folder(root)
    folder.mkdir(parents=True)
    for half, count in (("train", train), ("t10k", test)):
        classes = random.permutation(np.arange(count) % len(labels))
        images = shapes[classes] + random.integers(0, 56, (count, 28, 28))
        values = torch.tensor(labels, dtype=torch.uint8)[torch.from_numpy(classes)]
        (folder / f"{half}-images-idx3-ubyte").write_bytes(idx(torch.tensor(images).byte()))
        (folder / f"{half}-labels-idx1-ubyte").write_bytes(idx(values))
    return root


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
    assert header == "image,ink,label," + ",".join(f"p{label}" for label in labels)
    truth = source.load(root, train=False, verify=False, known=labels)[1].tolist()
    right = [int(line.split(",")[2]) == label for line, label in zip(lines, truth, strict=True)]
    assert sum(right) / len(right) > 0.9


def test_labels_that_were_not_expected_are_named(workplace, capsys):
    root = patterns(workplace / "set", range(12))
    options = [*SHORT, f"--data.root={root}", "--data.digits=[0, 1]"]
    assert "expected 0 to 1, in" in refusal(capsys, fit.main, *options)
    assert "2 or more" in refusal(capsys, fit.main, *SHORT, "--model.classes=1")
    assert "two or more different" in refusal(capsys, fit.main, *SHORT, "--data.digits=[1, 1]")
