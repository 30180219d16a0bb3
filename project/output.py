"""Checks the output files that a user names, before the work that produces them."""

from __future__ import annotations

import os
from pathlib import Path

from data.paths import expanded
from project.errors import UserError


def file_to_write(name: str) -> Path:
    """Returns the path of a file to write; missing folders are created when it is written.

    Raises:
        UserError: nothing can be written there.
    """
    path = expanded(name)
    if path.is_dir():
        raise UserError(f"{path} is a folder; name a file in it.")
    return _below_folders(path)


def file_if_named(name: str | None) -> Path | None:
    """Returns the path of a file to write, or None if none is named."""
    return None if name is None else file_to_write(name)


def folder_to_fill(name: str | Path) -> Path:
    """Returns the path of a folder to write into; raises as `file_to_write` does."""
    path = expanded(name)
    if _is_no_folder(path):
        raise UserError(f"{path} is a file; name a folder.")
    return _below_folders(path)


def _below_folders(path: Path) -> Path:
    if file := next(filter(_is_no_folder, path.parents), None):
        raise UserError(f"{path} cannot be written, since {file} is a file.")
    place = next(place for place in (path, *path.absolute().parents) if place.is_dir())
    if not os.access(place, os.W_OK) and not _is_device(path):
        raise UserError(f"{path} cannot be written: {place} takes no files.")
    return path


def _is_device(path: Path) -> bool:
    """Whether it is a device or a pipe, such as a terminal, which is written to directly."""
    return path.exists() and not path.is_file() and not path.is_dir()


def _is_no_folder(path: Path) -> bool:
    """Whether something other than a folder is there: a file, a pipe, a device."""
    return path.exists() and not path.is_dir()
