from __future__ import annotations

import contextlib
import errno
import gzip
import http.client
import os
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from helpers import full_disk, idx
from hypothesis import given
from hypothesis import strategies as st

from data import DatasetError, source
from data.idx import parse_idx

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


def test_names_with_a_dot_and_nearer_folders_are_found(tiny_root, no_network):
    expected, _ = source.load(tiny_root, train=True)
    raw = source.raw_folder(tiny_root)
    for folder in (tiny_root / "MNIST", tiny_root):
        for path in list(raw.iterdir()):
            path.rename(folder / path.name.replace("-idx", ".idx"))
        source.ensure(tiny_root)
        assert torch.equal(source.load(tiny_root, train=True)[0], expected)
        for path in folder.glob("*ubyte"):
            path.rename(raw / path.name.replace(".idx", "-idx"))


def test_folders_of_their_names_are_looked_into(tiny_root, no_network):
    expected, _ = source.load(tiny_root, train=True)
    for path in list(source.raw_folder(tiny_root).iterdir()):
        content = path.read_bytes()
        path.unlink()
        path.mkdir()
        if "images" in path.name:
            (path / path.name.replace("-idx", ".idx")).write_bytes(content)
        else:
            (path / f"{path.name}.gz").write_bytes(gzip.compress(content))
    before = everything(tiny_root)
    source.ensure(tiny_root)
    assert torch.equal(source.load(tiny_root, train=True)[0], expected)
    assert everything(tiny_root) == before


@pytest.mark.parametrize("given", ["", "MNIST", "MNIST/raw"])
def test_any_folder_on_the_way_may_be_named(given, tiny_root, no_network):
    before = everything(tiny_root)
    source.ensure(tiny_root / given)
    assert len(source.load(tiny_root / given, train=False)[0]) == 70
    assert everything(tiny_root) == before


def everything(folder: Path) -> dict[str, str | bytes]:
    """What lies below a folder: links by where they lead, files by their content."""
    return {
        str(path.relative_to(folder)): str(path.readlink())
        if path.is_symlink()
        else path.read_bytes()
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def refusal(root: Path, **options: bool) -> str:
    """The one line with which a folder is refused, in which nothing changes."""
    before = everything(root)
    with pytest.raises(DatasetError) as caught:
        source.ensure(root, **options)
    assert everything(root) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_files_of_another_set_are_named_and_left_alone(foreign_root):
    message = refusal(foreign_root)
    assert f"{source.raw_folder(foreign_root)} holds files that are not MNIST's" in message
    assert f"{TRAIN_IMAGES} is a file of 60 images of 28x28" in message
    assert "t10k-labels-idx1-ubyte is a file of 20 labels" in message
    for way in ("--data.verify false", "MNIST_ROOT", "--data.root", "move them away"):
        assert way in message


@pytest.mark.parametrize("verify", [True, False])
def test_nothing_is_fetched_beside_files_of_another_set(foreign_root, verify):
    (source.raw_folder(foreign_root) / TRAIN_IMAGES).unlink()
    message = refusal(foreign_root, verify=verify)
    assert f"{TRAIN_IMAGES} is missing" in message
    assert "Nothing is fetched" in message
    assert "--data.verify" not in message, "it would not help"


@pytest.mark.parametrize("verify", [True, False])
def test_what_is_missing_of_mnist_is_fetched(tiny_root, whole, verify, monkeypatch):
    asked = serve(monkeypatch, whole)
    path = source.raw_folder(tiny_root) / TRAIN_IMAGES
    path.unlink()
    source.ensure(tiny_root, verify=verify)
    assert asked == [[TRAIN_IMAGES]]
    assert everything(path.parent) == whole


BROKEN = {
    "truncated": ("", lambda content: content[:1000], "an IDX file, cut off: 1,000 bytes"),
    "too long": ("", lambda content: content + b"0", "an IDX file, too long"),
    "flipped bit": ("", lambda content: content[:-1] + bytes([content[-1] ^ 1]), "130 images of"),
    "empty": ("", lambda content: b"", "no IDX file of 3 dimensions"),
    "bad gzip": (".gz", lambda content: content, "no whole gzip file"),
    "cut gzip": (".gz", lambda content: gzip.compress(content)[:-9], "no whole gzip file"),
}


@pytest.fixture(params=BROKEN)
def broken(request, tiny_root, whole):
    """A file that is not whole, and what is said of it."""
    end, damage, words = BROKEN[request.param]
    path = source.raw_folder(tiny_root) / TRAIN_IMAGES
    path.unlink()
    path = path.with_name(f"{TRAIN_IMAGES}{end}")
    path.write_bytes(damage(whole[TRAIN_IMAGES]))
    return path, words


def test_broken_file_is_named_and_left_alone(tiny_root, whole, broken, monkeypatch):
    asked = serve(monkeypatch, whole)
    path, words = broken
    message = refusal(tiny_root)
    assert words in message.split(path.name)[1]
    assert "move them away" in message
    assert not asked


def test_broken_file_does_no_harm_beside_its_whole_twin(tiny_root, whole, broken, no_network):
    path, _ = broken
    twin = path.parent / (TRAIN_IMAGES if path.suffix == ".gz" else f"{TRAIN_IMAGES}.gz")
    twin.write_bytes(gzip.compress(whole[TRAIN_IMAGES]) if twin.suffix else whole[TRAIN_IMAGES])
    before = everything(tiny_root)
    source.ensure(tiny_root)
    assert len(source.load(tiny_root, train=True)[0]) == 130
    assert everything(tiny_root) == before


@pytest.mark.parametrize("target", ["nothing", "other"])
def test_link_is_never_replaced(tiny_root, whole, target, monkeypatch):
    asked = serve(monkeypatch, whole)
    path = source.raw_folder(tiny_root) / TRAIN_IMAGES
    path.unlink()
    (tiny_root / "other").write_bytes(b"precious")
    path.symlink_to(tiny_root / target)
    message = refusal(tiny_root)
    assert f"{TRAIN_IMAGES} is no " in message
    assert not asked


def test_folder_in_place_of_a_file_is_named(tiny_root, no_network):
    path = source.raw_folder(tiny_root) / TRAIN_IMAGES
    path.unlink()
    path.mkdir()
    assert f"{TRAIN_IMAGES} is no file to read (Is a directory)" in refusal(tiny_root)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no pipes among its files")
def test_pipe_in_place_of_a_file_is_not_waited_for(tiny_root, no_network):
    path = source.raw_folder(tiny_root) / TRAIN_IMAGES
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DatasetError, match=f"{TRAIN_IMAGES} is no file, but a pipe"):
        source.ensure(tiny_root)


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gz"])
def test_header_is_enough_to_know_how_large_images_are(pack, tiny_root, monkeypatch):
    path = source.raw_folder(tiny_root) / TRAIN_IMAGES
    path.unlink()
    suffix = ".gz" if pack is gzip.compress else ""
    path.with_name(path.name + suffix).write_bytes(pack(images_of(60, 32, 24)))
    monkeypatch.setattr(source, "parse_idx", lambda *_: pytest.fail("it reads the images"))
    assert source.image_size(tiny_root) == (32, 24)


def test_half_a_header_is_refused(tiny_root):
    (source.raw_folder(tiny_root) / TRAIN_IMAGES).write_bytes(images_of(60, 28, 28)[:12])
    with pytest.raises(source.DatasetError, match="cut off in its header: 12 bytes"):
        source.image_size(tiny_root)


def labels_of(*values: int) -> bytes:
    return idx(torch.tensor(values, dtype=torch.uint8))


def images_of(*shape: int) -> bytes:
    return idx(torch.zeros(shape, dtype=torch.uint8))


OTHER_SHAPES = {
    "size": (images_of(60, 32, 28), None, "holds 60 images of 32x28, expected 28x28"),
    "none": (images_of(0, 28, 28), None, "holds no images"),
    "fewer": (images_of(59, 28, 28), None, "holds 60 labels for 59 images"),
    "letters": (images_of(2, 28, 28), labels_of(9, 26), "label 1 of .* is 26, expected 0 to 9"),
    "dimensions": (images_of(60, 784), None, "no IDX file of 3 dimensions"),
}


@pytest.mark.parametrize("case", OTHER_SHAPES)
def test_unverified_files_must_still_hold_digits(foreign_root, case):
    images, labels, words = OTHER_SHAPES[case]
    folder = source.raw_folder(foreign_root)
    (folder / TRAIN_IMAGES).write_bytes(images)
    if labels:
        (folder / "train-labels-idx1-ubyte").write_bytes(labels)
    with pytest.raises(DatasetError, match=words):
        source.load(foreign_root, train=True, verify=False)


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


def test_unreachable_sources_are_named_and_what_to_do(tiny_root, no_network):
    path = source.raw_folder(tiny_root) / TRAIN_IMAGES
    path.unlink()
    message = refusal(tiny_root)
    assert f"{TRAIN_IMAGES} missing in {path.parent}" in message
    assert "mirror: Network is unreachable; npm: Network is unreachable" in message
    assert f"Put {TRAIN_IMAGES} (or .gz) there" in message
    assert "MNIST_ROOT" in message


def test_file_that_appears_meanwhile_is_not_replaced(tmp_path, whole, monkeypatch):
    folder = source.raw_folder(tmp_path)

    def slow(names):
        folder.mkdir(parents=True)
        (folder / TRAIN_IMAGES).write_bytes(b"the user's")
        yield from ((name, whole[name]) for name in names)

    monkeypatch.setattr(source, "_sources", lambda: [("slow", slow)])
    with pytest.raises(DatasetError, match=f"{TRAIN_IMAGES} cannot be written .*: File exists"):
        source.ensure(tmp_path)
    assert everything(folder) == {TRAIN_IMAGES: b"the user's"}


@pytest.mark.parametrize("links", [True, False])
def test_two_processes_may_fetch_at_once(tmp_path, whole, links, monkeypatch):
    def fetch(names):
        for name in names:
            monkeypatch.setattr(source, "_sources", lambda: [("other", deliver)])
            if name == TRAIN_IMAGES:
                source.ensure(tmp_path)  # the other process is faster
            yield name, whole[name]

    def deliver(names):
        yield from ((name, whole[name]) for name in names)

    def link(old, new):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(source, "_sources", lambda: [("slow", fetch)])
    if not links:
        monkeypatch.setattr(os, "link", link)
    source.ensure(tmp_path)
    assert everything(source.raw_folder(tmp_path)) == whole


def test_many_that_fetch_at_once_agree(tmp_path, whole, monkeypatch):
    ready = threading.Barrier(8)

    def deliver(names):
        for name in names:
            ready.wait()
            yield name, whole[name]

    monkeypatch.setattr(source, "_sources", lambda: [("mirror", deliver)])
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(source.ensure, [tmp_path] * 8))
    assert everything(source.raw_folder(tmp_path)) == whole


def test_full_disk_is_one_line_and_leaves_nothing(tmp_path, whole, monkeypatch):
    asked = serve(monkeypatch, whole, whole)
    with (
        full_disk(1000),
        pytest.raises(DatasetError, match=f"{TRAIN_IMAGES} cannot be written .* too large"),
    ):
        source.ensure(tmp_path / "new")
    assert len(asked) == 1, "another source would not help"
    assert not [path for path in (tmp_path / "new").rglob("*") if path.is_file()]


def test_no_host_of_a_registry_is_named():
    text = Path(source.__file__).read_text(encoding="utf-8")
    assert "registry." not in text
    assert "npmjs" not in text


@given(st.lists(st.integers(0, 5), min_size=3, max_size=3))
def test_idx_round_trip(shape):
    array = torch.arange(torch.Size(shape).numel(), dtype=torch.uint8).view(shape)
    assert torch.equal(parse_idx(idx(array), 3), array)


@given(st.binary(max_size=40), st.integers(1, 3))
def test_any_bytes_are_decoded_or_refused(content, dimensions):
    with contextlib.suppress(ValueError):
        assert parse_idx(content, dimensions).dim() == dimensions
