"""Files that a user names to be written, looked at before the work that fills them."""

from __future__ import annotations

from pathlib import Path

from data.paths import expanded
from project.errors import UserError


def file_to_write(name: str) -> Path:
    """The path of a file that is to be written; folders that it lacks are made with it.

    Raises:
        UserError: nothing can be written there.
    """
    path = expanded(name)
    if path.is_dir():
        raise UserError(f"{path} is a folder; name a file in it.")
    return _below_folders(path)


def folder_to_fill(name: str) -> Path:
    """The same for a folder."""
    path = expanded(name)
    if path.is_file():
        raise UserError(f"{path} is a file; name a folder.")
    return _below_folders(path)


def _below_folders(path: Path) -> Path:
    if file := next((parent for parent in path.parents if parent.is_file()), None):
        raise UserError(f"{path} cannot be written, since {file} is a file.")
    return path
