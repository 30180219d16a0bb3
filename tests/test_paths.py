"""`~` and variables mean in a path what they mean in a shell, wherever a program takes one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from helpers import REPOSITORY

from data.paths import expanded
from data.source import resolve_root
from project import evaluate, export, fit, predict
from project.bench import __main__ as bench
from project.page import __main__ as page
from project.reproduce import __main__ as reproduce

CASES = {
    "~/x": "home/x",
    "$HOME/x": "home/x",
    "~": "home",
    "${HOME}": "home",
    "plain/~": "plain/~",
    "~nobody-of-that-name/x": "~nobody-of-that-name/x",
    "$NO_SUCH/x": "$NO_SUCH/x",
}


@pytest.fixture
def home(tiny, monkeypatch):
    """The user's folder, below the current one."""
    folder = tiny / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("DIGITS", str(folder / "pictures"))
    return folder


@pytest.mark.parametrize("written", CASES)
def test_path_is_the_one_that_a_shell_would_take(written, home):
    assert expanded(written).absolute() == (home.parent / CASES[written])


def test_what_is_there_under_that_very_name_is_meant(home):
    for name in ("~", "$HOME"):
        Path(name).mkdir()
        assert expanded(name) == Path(name)


def test_every_program_takes_them(home, monkeypatch):
    root = resolve_root(None)
    (home / "digits").symlink_to(root.resolve())
    monkeypatch.setenv("MNIST_ROOT", "$HOME/digits")
    monkeypatch.chdir(home.parent)
    shutil.copytree(REPOSITORY / "docs/digits", home / "pictures")
    (home / "own.yaml").write_text("experiment: lenet5\ndata:\n  root: ~/digits\n")
    fit.main(["--config=~/own.yaml", "--trainer.max_steps=2", "--figures=none"])
    (home / "own.ckpt").write_bytes(next(Path("runs").rglob("*.ckpt")).read_bytes())
    model = "--ckpt_path=~/own.ckpt"
    evaluate.main([model, "--json=$HOME/record.json"])
    export.main([model, "--format=html", "--output=~/page.html"])
    page.main(["~/page.html"])
    predict.main([model, "--output=~/answers.csv", "--show=~/seen", "$DIGITS/", "~/pictures"])
    made = {"record.json", "page.html", "answers.csv", "seen"}
    assert {path.name for path in home.iterdir()} == made | {"digits", "pictures"} | {
        "own.yaml",
        "own.ckpt",
    }
    assert {path.name for path in home.parent.iterdir()} == {"home", "runs"}


def test_programs_with_parsers_of_their_own_take_them(home, monkeypatch):
    assert reproduce._folder("~/report") == home / "report"
    assert reproduce._folder("$HOME/docs") == home / "docs"
    asked = bench.QUESTIONS["kernel"]._replace(run=lambda options: [])
    monkeypatch.setitem(bench.QUESTIONS, "kernel", asked)
    bench.main(["kernel", "--json=~/bench.json"])
    assert (home / "bench.json").exists()
