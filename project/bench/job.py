"""Runs `project.fit` as a process of its own, as a user starts it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from project.errors import UserError

REPOSITORY = Path(__file__).parents[2]


def fit(*options: str, **environment: str) -> dict[str, Any]:
    """Runs `project.fit` in a temporary folder and returns its results.json.

    Args:
        options: options of the command line.
        environment: variables added to those of this process.

    Raises:
        UserError: project.fit ended with an error.
    """
    paths = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "project.fit", *options],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": paths} | environment,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise UserError(f"project.fit {' '.join(options)} ended with: {done.stderr[-500:]}")
        (results,) = Path(folder).glob("runs/*/*/results.json")
        record: dict[str, Any] = json.loads(results.read_text("utf-8"))
    return record
