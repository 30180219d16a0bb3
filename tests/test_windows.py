"""What Windows refuses does not stop a program: a stand-in for it, on this system."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import REPOSITORY, is_open

from data import source
from project import evaluate, export, fit, predict

pytestmark = pytest.mark.usefixtures("windows")
SMALL = ["--data.batch_size=20", "--data.block_size=3", "--trainer.max_epochs=2"]
RUN = Path("runs/lenet5-original/version_0")


def test_stand_in_refuses_a_file_that_is_open(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"")
    with path.open("rb"):
        assert is_open(path)
        for refused in (path.unlink, lambda: path.rename(tmp_path / "other")):
            with pytest.raises(PermissionError):
                refused()
    path.unlink()


def test_every_program_does_its_work(tiny, capsys):
    fit.main([*SMALL, "--checkpoint_every=3"])
    assert (RUN / "results.json").exists()
    (RUN / "losses.npy").write_bytes(b"damaged")
    fit.main(["--ckpt_path=last", "--trainer.max_epochs=3", "--figures=none"])
    assert len(np.load(RUN / "losses.npy")) == 21
    assert len(list((RUN / "checkpoints").iterdir())) == 2
    evaluate.main(["--ckpt_path=last", "--json=record.json"])
    digit = str(REPOSITORY / "docs/digits/chalk-3.png")
    for _ in range(2):
        predict.main(["--ckpt_path=last", "--output=answers.csv", "--show=seen", digit])
        export.main(["--ckpt_path=last", "--format=html", "--output=page.html"])
    found = {path.name for path in tiny.iterdir()}
    assert found == {"runs", "record.json", "answers.csv", "seen", "page.html"}
    assert not list(tiny.rglob("*.tmp"))


@pytest.mark.parametrize("links", [True, False], ids=["hard links", "none"])
def test_mnist_is_fetched(links, tiny_root, tmp_path, monkeypatch):
    whole = {path.name: path.read_bytes() for path in source.raw_folder(tiny_root).iterdir()}
    monkeypatch.setattr(source, "_sources", lambda: [("a source", lambda names: whole.items())])
    if not links:

        def link(*paths):
            raise OSError

        monkeypatch.setattr("os.link", link)
    shutil.rmtree(tiny_root)
    source.ensure(tiny_root)
    folder = source.raw_folder(tiny_root)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole
