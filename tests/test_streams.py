"""Programs that are started without streams, or with ones that lack letters."""

from __future__ import annotations

import subprocess
import sys

from helpers import REPOSITORY, python

from project import fit, streams

WITHOUT = """
import project, sys
print("nowhere"), print("nowhere", file=sys.stderr)
assert not sys.stdout.isatty()
with open("file", "w") as file:
    assert file.fileno() > 2
"""


def test_nothing_is_written_where_a_closed_stream_was(tmp_path):
    script = tmp_path / "without.py"
    script.write_text(WITHOUT)
    command = f"PYTHONPATH='{REPOSITORY}' exec '{sys.executable}' {script.name} <&- >&- 2>&-"
    subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True)
    assert (tmp_path / "file").read_text() == ""


def test_training_needs_no_streams(tiny, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    streams.settle()
    with sys.stdout, sys.stderr:
        fit.main(["--data.batch_size=20", "--trainer.max_epochs=1"])
    assert list(tiny.rglob("results.json"))


def test_letters_that_a_console_lacks_are_written_as_numbers():
    code = "import project, sys; print('数\\udce9'); print('数', file=sys.stderr)"
    done = python("-c", code, PYTHONIOENCODING="cp1252")
    assert (done.returncode, done.stdout, done.stderr) == (0, "\\u6570\\udce9\n", "\\u6570\n")
