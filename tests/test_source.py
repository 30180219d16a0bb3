from __future__ import annotations

import contextlib
import gzip
import http.client
import tarfile
from pathlib import Path

import pytest
import torch
from conftest import idx
from hypothesis import given
from hypothesis import strategies as st

from data import DatasetError, source

TRAIN_IMAGES = "train-images-idx3-ubyte"


@pytest.fixture
def whole(tiny_root: Path) -> dict[str, bytes]:
    """The content of the four files, as a source would deliver it."""
    folder = source.raw_folder(tiny_root)
    return {name: (folder / name).read_bytes() for name in source.CHECKSUMS}


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(names):
        raise OSError("Network is unreachable")
        yield

    monkeypatch.setattr(source, "_sources", lambda: [("mirror", unreachable), ("npm", unreachable)])


def serve(monkeypatch: pytest.MonkeyPatch, *deliveries: dict[str, bytes]) -> list[list[str]]:
    """Replaces the sources by one for each delivery; returns what is asked of them."""
    asked: list[list[str]] = []

    def source_of(delivery):
        def fetch(names):
            asked.append(list(names))
            for name in names:
                if name not in delivery:
                    raise OSError("404")
                yield name, delivery[name]

        return fetch

    sources = [(f"source {i}", source_of(delivery)) for i, delivery in enumerate(deliveries)]
    monkeypatch.setattr(source, "_sources", lambda: sources)
    return asked


def test_present_files_are_taken_as_they_are(tiny_root, no_network):
    source.ensure(tiny_root)
    images, labels = source.load(tiny_root, train=True)
    assert images.shape == (130, 28, 28)
    assert images.dtype == labels.dtype == torch.uint8
    assert labels.shape == (130,)


def test_gzipped_files_are_read_and_nothing_is_written(tiny_root, no_network):
    expected, _ = source.load(tiny_root, train=True)
    folder = source.raw_folder(tiny_root)
    for name in source.CHECKSUMS:
        path = folder / name
        (folder / f"{name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    before = sorted(folder.iterdir())
    source.ensure(tiny_root)
    assert torch.equal(source.load(tiny_root, train=True)[0], expected)
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("damage", ["truncated", "flipped bit", "bad gzip", "empty"])
def test_damaged_file_is_named_and_replaced(tiny_root, whole, damage, monkeypatch, capsys):
    asked = serve(monkeypatch, whole)
    path = source.raw_folder(tiny_root) / TRAIN_IMAGES
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flipped bit":
        content[-1] ^= 1
        path.write_bytes(content)
    elif damage == "bad gzip":
        path.rename(path.with_name(f"{path.name}.gz"))
    else:
        path.write_bytes(b"")
    source.ensure(tiny_root)
    assert asked == [[TRAIN_IMAGES]]
    assert f"{TRAIN_IMAGES} is truncated or corrupted" in capsys.readouterr().out
    assert path.read_bytes() == whole[TRAIN_IMAGES]
    assert sorted(p.name for p in path.parent.iterdir()) == sorted(source.CHECKSUMS)


def test_second_source_delivers_what_the_first_does_not(tmp_path, whole, monkeypatch):
    names = list(whole)
    asked = serve(monkeypatch, {names[0]: whole[names[0]]}, whole)
    source.ensure(tmp_path / "new")
    assert asked == [names, names[1:]]


@pytest.mark.parametrize(
    "error",
    [http.client.IncompleteRead(b"half"), tarfile.ReadError("not a tar"), KeyError("no member")],
    ids=lambda error: type(error).__name__,
)
def test_next_source_is_tried_where_one_breaks_off(tmp_path, whole, error, monkeypatch):
    def broken(names):
        yield TRAIN_IMAGES, whole[TRAIN_IMAGES]
        raise error

    asked = []

    def good(names):
        asked.append(list(names))
        yield from ((name, whole[name]) for name in names)

    monkeypatch.setattr(source, "_sources", lambda: [("broken", broken), ("good", good)])
    source.ensure(tmp_path)
    assert asked == [[name for name in whole if name != TRAIN_IMAGES]]


def test_damaged_delivery_is_refused(tmp_path, whole, monkeypatch):
    serve(monkeypatch, {name: content[:-1] for name, content in whole.items()})
    with pytest.raises(DatasetError, match=f"{TRAIN_IMAGES} arrived damaged"):
        source.ensure(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_unreachable_sources_leave_the_damaged_file_and_say_what_to_do(tiny_root, no_network):
    path = source.raw_folder(tiny_root) / TRAIN_IMAGES
    path.write_bytes(b"half")
    with pytest.raises(DatasetError) as caught:
        source.ensure(tiny_root)
    message = str(caught.value)
    assert f"{TRAIN_IMAGES} is truncated or corrupted in {path.parent}" in message
    assert f"Put {TRAIN_IMAGES} (or .gz) into {path.parent}" in message
    assert "MNIST_ROOT" in message
    assert "\n" not in message
    assert path.read_bytes() == b"half"


def test_no_host_of_a_registry_is_named():
    text = Path(source.__file__).read_text(encoding="utf-8")
    assert "registry." not in text
    assert "npmjs" not in text


@given(st.lists(st.integers(0, 5), min_size=3, max_size=3))
def test_idx_round_trip(shape):
    array = torch.arange(torch.Size(shape).numel(), dtype=torch.uint8).view(shape)
    assert torch.equal(source.parse_idx(idx(array), 3), array)


@given(st.binary(max_size=40), st.integers(1, 3))
def test_any_bytes_are_decoded_or_refused(content, dimensions):
    with contextlib.suppress(ValueError):
        assert source.parse_idx(content, dimensions).dim() == dimensions
