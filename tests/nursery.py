"""Runs of `project.fit` in processes of their own that are born with everything imported.

An import takes longer than most trainings of the tests.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from helpers import REPOSITORY, free_port

# Reads a line for each wish: a run to start, or a process whose exit code is wanted, now or at all.
SCRIPT = """
import json, os, sys, traceback
import torch
from project import fit

def live(words, folder, environment, place):
    for number, end in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{place}.{end}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
    os.chdir(folder)
    os.environ.update(environment)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    try:
        fit.main(words)
    except SystemExit as end:
        return end.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
    return 0

for line in sys.stdin:
    wish = json.loads(line)
    if "words" in wish:
        child = os.fork()
        if not child:
            code = live(**wish)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        print(child, flush=True)
    else:
        child, status = os.waitpid(wish["pid"], 0 if wish["wait"] else os.WNOHANG)
        print(os.waitstatus_to_exitcode(status) if child else "null", flush=True)
"""


class Run:
    """One that has been started."""

    def __init__(self, nursery: Nursery, pid: int, place: Path) -> None:
        self.pid = pid
        self._nursery, self._place = nursery, place
        self._code: int | None = None

    def poll(self) -> int | None:
        """Its exit code, as that of `subprocess.Popen`; None before its end."""
        return self._look(wait=False)

    def wait(self) -> subprocess.CompletedProcess[str]:
        """What it came to."""
        code = self._look(wait=True)
        texts = [self._place.with_suffix(end).read_text() for end in (".out", ".err")]
        return subprocess.CompletedProcess([], int(code or 0), *texts)

    def _look(self, *, wait: bool) -> int | None:
        if self._code is None:
            self._code = self._nursery.ask(pid=self.pid, wait=wait)
        return self._code


class Nursery:
    """The process that all runs are children of.

    Args:
        folder: for what they print.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder, 0
        self._process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT],
            env=os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHONFAULTHANDLER": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, **wish: Any) -> Any:
        """Its answer to a wish."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(wish) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def start(self, *words: str, folder: Path, **environment: str) -> Run:
        """Lets `project.fit` begin with these arguments, in a folder."""
        self._count += 1
        place = self._folder / f"run-{self._count}"
        wish = {"words": words, "folder": str(folder), "environment": environment}
        return Run(self, self.ask(**wish, place=str(place)), place)

    def run(self, *words: str, folder: Path, **environment: str) -> None:
        """Waits for the end of one, which must be a good one."""
        done = self.start(*words, folder=folder, **environment).wait()
        assert done.returncode == 0, done.stderr

    def ranks(self, count: int, *words: str, folder: Path, **environment: str) -> None:
        """So many that work together, each started as some cluster's own launcher would do it."""
        job = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        job |= {"WORLD_SIZE": str(count), **environment}
        numbers = ({"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count))
        runs = [self.start(*words, folder=folder, **job, **number) for number in numbers]
        for done in [run.wait() for run in runs]:
            assert done.returncode == 0, done.stderr

    def close(self) -> None:
        """Ends it, when nothing runs any more."""
        self._process.communicate(timeout=60)


@contextmanager
def opened(folder: Path) -> Iterator[Nursery]:
    """One, and its end."""
    nursery = Nursery(folder)
    try:
        yield nursery
    finally:
        nursery.close()
