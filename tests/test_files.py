from __future__ import annotations

import json
import os
import stat
import threading

import pytest
from helpers import full_disk

from callbacks.files import write_json, write_text, written_whole


@pytest.fixture
def path(tmp_path):
    """A file with a neighbour under every name that a writer might think of."""
    path = tmp_path / "file.json"
    path.write_text("older")
    for name in ("file.tmp", "file.json.tmp", ".file.json.tmp"):
        (tmp_path / name).write_text("the user's")
    return path


def content(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_file_gets_its_name_when_it_is_whole_and_others_stay(path, tmp_path):
    before = content(tmp_path)
    with written_whole(path) as file:
        file.write(b"half")
        file.flush()
        assert path.read_text() == "older"
        file.write(b" and half")
    assert content(tmp_path) == before | {"file.json": "half and half"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_fails_half_way_leaves_everything_as_it_was(path, tmp_path, error):
    before = content(tmp_path)

    def write():
        with written_whole(path) as file:
            file.write(b"half")
            raise error

    with pytest.raises(error):
        write()
    assert content(tmp_path) == before


def test_full_disk_is_told_of_the_file_that_was_asked_for(path, tmp_path):
    before = content(tmp_path)
    with full_disk(1000), pytest.raises(OSError, match=r"File too large: '.*/file.json'$"):
        write_text(path, "x" * 2000)
    assert content(tmp_path) == before


def test_file_is_closed_before_it_is_renamed(path, windows):
    write_json(path, {"a": 1})
    assert json.loads(path.read_text()) == {"a": 1}


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_are_those_of_any_new_file(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write_text(tmp_path / "file", "")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


def test_folders_above_are_made(tmp_path):
    write_text(tmp_path / "new" / "folder" / "file", "é")
    assert (tmp_path / "new" / "folder" / "file").read_bytes() == "é".encode()


def test_text_of_any_letters_is_written_in_utf_8(tmp_path):
    write_text(tmp_path / "file", "é\udce9")
    assert (tmp_path / "file").read_text("utf-8") == "é\\udce9"


def test_link_is_followed_and_stays(path, tmp_path):
    link = tmp_path / "elsewhere" / "link"
    link.parent.mkdir()
    link.symlink_to(path)
    write_text(link, "newer")
    assert link.is_symlink()
    assert path.read_text() == "newer"
    assert [link] == list(link.parent.iterdir())


def test_what_is_no_file_is_written_to(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_text()))
    reader.start()
    write_text(pipe, "through")
    reader.join()
    assert got == ["through"]
    assert pipe.is_fifo()


def test_folder_in_its_place_is_an_error_that_names_it(tmp_path):
    with pytest.raises(IsADirectoryError, match=str(tmp_path)):
        write_text(tmp_path, "")
