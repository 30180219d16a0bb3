"""What a run records, and how its table says it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from callbacks.results import git_revision
from project.table import print_results


def test_commit_is_that_of_this_code_whatever_a_hook_set(tmp_path, monkeypatch):
    revision = git_revision()
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path))
    git_revision.cache_clear()
    assert git_revision() == revision


def test_names_are_printed_as_they_are(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    name = "lenet[lr=0.1] [bold] :x: \\[red]"
    record = {
        "config": name,
        "parameters": 1,
        "iterations": 1,
        "device": "cpu",
        "backend": "cpu",
        "learner": "eager",
        "why_not_faster": f"{name} is another",
        "test": {
            "accuracy": 1.0,
            "loss": 0.0,
            "correct": 1,
            "total": 1,
            "predicted_classes": 2,
        },
        "validation": None,
        "seconds": {},
        "images_per_second": 0,
    }
    print_results(record, Path("runs") / name)
    out = capsys.readouterr().out
    assert out.splitlines()[0].strip() == name
    assert f"runs/{name}" in out
    assert f"eager ({name} is another)" in out
