"""Machine code is kept between runs, and never an old one or a damaged one is run."""

from __future__ import annotations

import errno
import importlib
import os
import random
import shutil
import subprocess
import sys

import numba
import numpy as np
import pytest
from helpers import REPOSITORY

KERNEL = """
from kernels.compiled import entry
from kernels.constants import FACTOR

@entry()
def scaled(x):
    return FACTOR * x
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Kernels in two files, and where their machine code goes."""
    folder = tmp_path / "kernels"
    folder.mkdir()
    shutil.copy(REPOSITORY / "models" / "kernels" / "compiled.py", folder)
    (folder / "__init__.py").touch()
    (folder / "kernel.py").write_text(KERNEL)
    (folder / "constants.py").write_text("FACTOR = 3.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    # By its seconds, Python's own cache takes an edit of the same length for the same file.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))
    yield folder
    forget()


def forget():
    for name in [name for name in sys.modules if name.split(".")[0] == "kernels"]:
        del sys.modules[name]


def run():
    """What a new process would get: 2 scaled, and whether it was compiled or found."""
    forget()
    scaled = importlib.import_module("kernels.kernel").scaled
    result = scaled(2.0)
    hits, misses = (sum(count.values()) for count in scaled.stats[1:])
    assert hits + misses == 1
    return result, "found" if hits else "compiled"


def entry(package):
    (path,) = (package.parent / "cache").rglob("*.nbc")
    return path


def test_what_was_compiled_is_found(package):
    assert [run(), run()] == [(6, "compiled"), (6, "found")]


@pytest.mark.parametrize("file", ["constants.py", "deeper/other.py"])
def test_any_other_file_makes_it_compile_anew(package, file):
    run()
    path = package / file
    path.parent.mkdir(exist_ok=True)
    path.write_text("FACTOR = 5.0\n")
    factor = 5 if file == "constants.py" else 3
    assert [run(), run()] == [(2 * factor, "compiled"), (2 * factor, "found")]
    assert entry(package), "in the place of the old one"


def test_another_release_of_numba_makes_it_compile_anew(package, monkeypatch):
    run()
    monkeypatch.setattr(numba, "__version__", "0.0")
    assert run() == (6, "compiled")


def flip(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "one bit": lambda path: path.write_bytes(flip(path.read_bytes())),
    "zeros at the end": lambda path: path.write_bytes(path.read_bytes()[:-4096] + bytes(4096)),
    "random": lambda path: path.write_bytes(random.Random(0).randbytes(50_000)),
    "a folder": lambda path: (path.unlink(), path.mkdir(), (path / "file").touch()),
    "a dead link": lambda path: (path.unlink(), path.symlink_to("nowhere")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_made_again(package, damage, capfd):
    run()
    whole = entry(package).read_bytes()
    DAMAGES[damage](entry(package))
    assert run() == (6, "compiled")
    assert len(entry(package).read_bytes()) == len(whole)
    assert run() == (6, "found")
    assert capfd.readouterr() == ("", "")


def test_without_a_folder_that_can_be_written_it_compiles_and_says_so_once(
    package, monkeypatch, capfd
):
    # Files where folders would have to be: they stop root too.
    for name in ("cache", "kernels/__pycache__"):
        (package.parent / name).touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(package.parent / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(package.parent / "cache"))
    monkeypatch.setenv("HOME", str(package.parent / "cache"))
    (package / "kernel.py").write_text(KERNEL + KERNEL.replace("scaled", "again"))
    assert run() == (6, "compiled")
    out, err = capfd.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert "every start compiles them anew" in err
    assert "NUMBA_CACHE_DIR" in err


def test_on_a_full_disk_it_compiles_and_says_so_once(package, monkeypatch, capfd):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    assert run() == (6, "compiled")
    assert "No space left on device" in capfd.readouterr().err
    assert not [*(package.parent / "cache").rglob("*.tmp*")]


@pytest.mark.slow
def test_processes_that_compile_at_once_do_not_disturb_each_other(package):
    code = "from kernels.kernel import scaled; print(scaled(2.0))"
    cache = {
        "NUMBA_CACHE_DIR": str(package.parent / "cache"),
        "PYTHONPATH": str(REPOSITORY),
    }
    python = [sys.executable, "-c", code]
    processes = [
        subprocess.Popen(
            python,
            cwd=package.parent,
            env=os.environ | cache,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(3)
    ]
    assert [process.communicate()[0] for process in processes] == ["6.0\n"] * 3
    assert run() == (6, "found")


@pytest.mark.slow
def test_kernels_are_found_by_the_next_process():
    """Their keys are the same in every process."""
    code = """
import torch
from models import nets
from models.kernels.conv_pool import parallel
with torch.no_grad():
    nets.LeNet5()(torch.zeros(1, 1, 28, 28))
print(sum(parallel.forward_two.stats.cache_hits.values()))
"""
    command = [sys.executable, "-c", code]
    printed = [
        subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert printed[1] == "1\n"


def test_python_cannot_call_what_is_for_compiled_code():
    from models.kernels.chunks import begin_of  # one of them

    with pytest.raises(TypeError, match="begin_of is for compiled code; Python calls an `entry`"):
        begin_of(0, 1, 2)


TWO = """
from kernels.compiled import compiled, entry

@compiled()
def first_of(pair):
    return pair[0][1:]

@entry()
def twice(x):
    return 2 * first_of((x, x)).sum()

@entry()
def thrice(x):
    return 3 * first_of((x, x)).sum()
"""


def test_parts_are_found_by_another_entry_and_nothing_refers_to_an_array_afterwards(package):
    (package / "kernel.py").write_text(TWO)
    x = np.ones(4)
    before = sys.getrefcount(x)
    for name, expected, found in (("twice", 6.0, 0), ("thrice", 9.0, 1), ("twice", 6.0, 0)):
        forget()
        module = importlib.import_module("kernels.kernel")
        assert getattr(module, name)(x) == expected
        assert sum(module.first_of.stats.cache_hits.values()) == found
    assert sys.getrefcount(x) == before
