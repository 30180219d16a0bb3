"""Every command of the README is run, cut short where it would take long."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import REPOSITORY

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
COMMANDS = [line for block in BLOCKS for line in block.splitlines()]
# Run by another test, which looks at what comes of it; half a minute of compiling each time.
ELSEWHERE = {"python -m project.bench iteration": "test_bench.py"}
PROGRAMS = [
    command
    for command in COMMANDS
    if not command.startswith("pip install") and command not in ELSEWHERE
]

# What makes a program's run short.
SHORT = {
    "project.fit": ["--trainer.max_steps=3", "--trainer.limit_test_batches=1"],
    "project.evaluate": [],
    "project.predict": [],
    "project.export": [],
    "project.doctor": [],
    "project.bench": ["--repeats=1"],
    # The same report three times: only the first has anything to run.
    "project.reproduce": ["--quick", "--runs=1"],
    "tensorboard": ["--inspect"],
}
MODULES = {
    name: f"{name}.__main__" for name in ("project.bench", "project.doctor", "project.reproduce")
}


def test_setup_commands_are_one_line_each():
    assert [command for command in COMMANDS if command.startswith("pip install")] == [
        "pip install -r requirements.txt && python -m project.fit",
        "pip install -r requirements.txt -r requirements-dev.txt && python -m pytest",
    ]


def test_the_programs_of_the_readme_are_listed(capsys):
    importlib.import_module("project.__main__").main()
    listed = re.findall(r"^python -m (project\.\w+)", capsys.readouterr().out, re.MULTILINE)
    assert set(listed) == set(re.findall(r"-m (project\.\w+)", "\n".join(COMMANDS)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One place for all of them, since some use what others leave."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "docs").symlink_to(REPOSITORY / "docs")
    return folder


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("command", PROGRAMS)
def test_command_runs(command, folder, mnist_root, monkeypatch, capfd):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MNIST_ROOT", str(mnist_root))
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    words = shlex.split(command)
    program = words[words.index("-m") + 1] if "-m" in words else words[0]
    words += SHORT[program]
    if program == "project.bench":
        words.append("--batches=1" if "kernel" in words else "--only=logistic")
    if words[:2] == ["python", "-m"] and "ddp" not in words:
        # In this process, which has loaded already what each of them would load.
        code = exit_code(program, words[3:])
        error = capfd.readouterr().err
        assert code == 0, error
    else:
        words[0] = str(Path(sys.executable).with_name(words[0]))
        done = subprocess.run(words, capture_output=True, text=True)
        error = done.stderr
        assert done.returncode == 0, error
    assert "Traceback" not in error


def exit_code(program: str, arguments: list[str]) -> object:
    try:
        importlib.import_module(MODULES.get(program, program)).main(arguments)
    except SystemExit as end:
        return end.code
    return 0


@pytest.mark.parametrize("command", ELSEWHERE)
def test_commands_of_other_tests_are_the_readme_s(command):
    assert command in COMMANDS
    assert f'"{command}"' in (REPOSITORY / "tests" / ELSEWHERE[command]).read_text("utf-8")


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (REPOSITORY / target).exists(), target


def test_contributing_names_files_and_targets_that_exist():
    text = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for path in re.findall(r"[\w/]+/\w+\.(?:py|md)", text):
        assert (REPOSITORY / path).exists() or "PART" in path, path
    targets = re.findall(r"^(\w+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    assert targets == ["check", "test", "bench", "docs"]
    assert set(re.findall(r"make (\w+)", text)) <= set(targets)


def test_ci_runs_the_test_command_to_the_letter():
    pattern = re.search(r"grep -x '(.+)' README.md", (REPOSITORY / ".ci/run").read_text())[1]
    (command,) = (line for line in README.splitlines() if re.fullmatch(pattern, line))
    assert command in COMMANDS


def test_project_stands_alone():
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.split()
    for name in tracked:
        if name != "tests/test_readme.py" and not name.endswith(".png"):
            text = (REPOSITORY / name).read_text(encoding="utf-8")
            assert "shared/" not in text, name
            assert "/work/" not in text, name
