"""Images from files: found, brought into MNIST's shape, and labelled."""

from __future__ import annotations

import csv
import gzip
import json
import os
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import REPOSITORY, idx, python, refusal
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from data import source
from data.images import reading
from data.images.centre import like_mnist
from data.images.picture import look
from project import fit, predict


def ring(height=90, width=70, ink=230, paper=20, seed=0):
    """A zero somewhere on a sheet of paper, (height, width) uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    radius = min(height, width) / 4
    middle = (
        rng.uniform(radius + 6, height - radius - 6),
        rng.uniform(radius + 6, width - radius - 6),
    )
    distance = np.hypot(y - middle[0], (x - middle[1]) * 1.3)
    return np.where(abs(distance - radius) < 4, ink, paper).astype(np.uint8)


def read(*paths, several=False):
    """The digits of files that can all be read."""
    content = reading.read(paths, several=several)
    assert content.refused == []
    return content.digits


def save(path, pixels, **options):
    Image.fromarray(pixels).save(path, **options)
    return path


def test_ink_fits_20_pixels_and_its_mass_is_centred(tmp_path):
    (digit,) = read(save(tmp_path / "a.png", ring()))
    assert digit.pixels.shape == (28, 28)
    assert digit.pixels.dtype == torch.uint8
    rows, columns = (digit.pixels.any(axis).nonzero().flatten() for axis in (1, 0))
    assert max(rows.max() - rows.min(), columns.max() - columns.min()) + 1 == 20
    mass = digit.pixels.double()
    for axis in (0, 1):
        centre = (mass.sum(1 - axis) * torch.arange(28)).sum() / mass.sum()
        assert abs(centre - 14) <= 0.51
    assert digit.pixels.max() == 255


@pytest.mark.parametrize("suffix", ["png", "bmp", "jpg", "gif", "tiff", "webp"])
def test_dark_and_light_ink_give_the_same_in_every_format(suffix, tmp_path):
    light = save(tmp_path / f"light.{suffix}", ring())
    dark = save(tmp_path / f"dark.{suffix}", 255 - ring())
    first, second = read(light, dark)
    assert (first.ink, second.ink) == ("light", "dark")
    torch.testing.assert_close(first.pixels.float(), second.pixels.float(), atol=25, rtol=0)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32), scale=st.integers(1, 4))
def test_place_and_size_on_the_paper_do_not_matter(seed, scale):
    large = ring(seed=seed).repeat(scale, 0).repeat(scale, 1).astype(np.float32)
    reference = like_mnist(ring().astype(np.float32) - 20)
    actual = like_mnist(large - 20).float()
    # The centre of mass is met to half a pixel.
    shifts = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    assert min((actual.roll(by, (0, 1)) - reference).abs().mean() for by in shifts) < 20


@settings(deadline=None, max_examples=100)
@given(seed=st.integers(0, 2**32), height=st.integers(1, 40), width=st.integers(1, 40))
def test_noise_of_any_size_is_a_digit_or_none(seed, height, width):
    noise = np.random.default_rng(seed).integers(0, 4, (height, width, 1)) * 60
    for several in (False, True):
        for seen in look(noise, several=several):
            assert seen.pixels is None or (seen.pixels.shape == (28, 28) and seen.pixels.any())
            assert seen.pixels is not None or seen.reason == "no ink"


def test_digits_of_mnist_stay_nearly_as_they_are(mnist_root):
    pictures, _ = source.load(mnist_root, train=True)
    again = torch.stack([like_mnist(p.numpy().astype(np.float32)) for p in pictures[:100]])
    assert (again.float() - pictures[:100].float()).abs().mean() < 5


def test_alpha_16_bits_palette_and_colour(tmp_path):
    pixels = ring()
    reference = read(save(tmp_path / "grey.png", pixels))[0].pixels.float()
    ink = Image.new("RGBA", pixels.T.shape, (10, 10, 60, 255))
    ink.putalpha(Image.fromarray(np.where(pixels > 100, 255, 0).astype(np.uint8)))
    ink.save(tmp_path / "ink-on-nothing.png")
    save(tmp_path / "sixteen.png", (pixels.astype(np.uint16) * 257))
    Image.fromarray(pixels).convert("P").save(tmp_path / "palette.png")
    Image.fromarray(pixels).convert("RGB").save(tmp_path / "colour.png")
    for name in ("ink-on-nothing", "sixteen", "palette", "colour"):
        (digit,) = read(tmp_path / f"{name}.png")
        torch.testing.assert_close(digit.pixels.float(), reference, atol=40, rtol=0, msg=name)
        assert digit.ink == ("dark" if name == "ink-on-nothing" else "light")


@pytest.mark.parametrize(("scale", "offset"), [(1e36, 0), (1e-40, 0), (-1, 0), (1 / 255, -0.5)])
def test_floating_point_pixels_may_have_any_range(scale, offset, tmp_path):
    pixels = ring()
    reference = read(save(tmp_path / "grey.png", pixels))[0].pixels.float()
    Image.fromarray(np.float32(scale * pixels.astype(float) + offset)).save(tmp_path / "float.tif")
    (digit,) = read(tmp_path / "float.tif")
    torch.testing.assert_close(digit.pixels.float(), reference, atol=2, rtol=0)


@pytest.mark.parametrize("packed", [False, True])
def test_idx_files_are_taken_as_they_are(packed, tmp_path):
    pixels = torch.randint(0, 256, (3, 28, 28), dtype=torch.uint8)
    content = idx(pixels)
    path = tmp_path / "some-idx3-ubyte"
    path.write_bytes(gzip.compress(content) if packed else content)
    digits = read(tmp_path)
    assert [digit.name for digit in digits] == [f"{path}[{n}]" for n in range(3)]
    assert torch.equal(torch.stack([digit.pixels for digit in digits]), pixels)


def test_every_page_of_a_file_is_read_and_named(tmp_path):
    pages = [Image.fromarray(ring(seed=n)) for n in range(3)]
    for suffix in ("tif", "gif"):
        path = tmp_path / f"pages.{suffix}"
        pages[0].save(path, save_all=True, append_images=pages[1:])
        digits = read(path)
        assert [digit.name for digit in digits] == [f"{path}[{n}]" for n in range(3)]
        for n, digit in enumerate(digits):
            (alone,) = read(save(tmp_path / "alone.png", ring(seed=n)))
            torch.testing.assert_close(digit.pixels, alone.pixels, atol=3, rtol=0)


def test_arrays_of_numpy_are_read_in_any_shape_and_type(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 28, 28), dtype=np.uint8)
    pixels[0, 0, :2] = 0, 255
    for n, array in enumerate((pixels, pixels[:, None], pixels / 255, pixels.astype(np.int64))):
        np.save(tmp_path / f"{n}.npy", array)
        digits = read(tmp_path / f"{n}.npy")
        assert [digit.name for digit in digits] == [
            f"{tmp_path / f'{n}.npy'}[{i}]" for i in range(3)
        ]
        assert np.array_equal(torch.stack([digit.pixels for digit in digits]), pixels)
    np.savez(tmp_path / "set.npz", x_test=pixels, y_test=np.arange(3))
    assert [d.name for d in read(tmp_path / "set.npz")][2] == f"{tmp_path / 'set.npz'}[x_test][2]"
    np.save(tmp_path / "sheet.npy", ring())
    (sheet,) = read(tmp_path / "sheet.npy")
    assert torch.equal(sheet.pixels, read(save(tmp_path / "sheet.png", ring()))[0].pixels)


def test_folders_are_read_in_the_order_of_their_names(tmp_path):
    for name in ("b.png", "a.jpg", "c.bmp"):
        save(tmp_path / name, ring())
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "._b.png").write_bytes(b"\x00\x05\x16\x07")
    assert [digit.name[-5:] for digit in read(tmp_path)] == ["a.jpg", "b.png", "c.bmp"]


@pytest.mark.skipif(not reading.reads_avif(), reason="this Pillow reads no AVIF")
def test_telephone_pictures_are_read_where_pillow_reads_them(tmp_path):
    save(tmp_path / "photo.avif", ring())
    save(tmp_path / "photo.png", ring())
    photo, same = read(tmp_path)
    assert photo.name == str(tmp_path / "photo.avif")
    apart = (photo.pixels.int() - same.pixels.int()).abs()
    assert apart.max() < 64, "AVIF loses a little"


def test_telephone_pictures_are_named_where_pillow_does_not_read_them(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "reads_avif", lambda: False)
    (refused,) = reading.read([make_bad("photo.avif", tmp_path)]).refused
    assert "a picture in AVIF, which is not read here; save it as JPEG" in str(refused)


def png_of_size(side):
    """A file that says so and ends there: such a picture is not even opened."""
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    check = struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + check + b"\x00\x00\x00\x01IDAT"


BAD = {
    "text.png": (b"hello", "is not an image"),
    "empty.png": (b"", "is not an image"),
    "cut.png": (None, "is a damaged image"),
    "huge.png": (None, "more than 64,000,000; make it smaller"),
    "bomb.png": (png_of_size(20_000), "far more than 64,000,000 pixels; make it smaller"),
    "inf.tif": (None, "infinite or no numbers"),
    "nan.tif": (None, "infinite or no numbers"),
    "photo.heic": (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1", "a picture in HEIC"),
    "photo.avif": (b"\x00\x00\x00\x18ftypavif\x00\x00\x00\x00mif1", "in AVIF"),
    "cut.npy": (b"\x93NUMPY\x01\x00", "a damaged NumPy file"),
    "cut.npz": (b"PK\x03\x04 and so on", "a damaged NumPy file"),
    "labels.npz": (None, "holds no images, but arrays y"),
    "words.npy": (None, "holds no images, but <U3"),
    "packed.gz": (b"\x1f\x8b\x08 and so on", "damaged gzip"),
    "magic-idx3-ubyte": (bytes([0, 0, 8, 1, 0, 0, 0, 0]), "magic number"),
    "count-idx3-ubyte": (bytes([0, 0, 8, 3]) + bytes([127] * 12), "its header says"),
    "short-idx3-ubyte": (bytes([0, 0, 8, 3, 0]), "cut off in its header: 5 bytes"),
    "none-idx3-ubyte": (bytes([0, 0, 8, 3] + [0] * 12), "holds no images"),
    "missing.png": (None, "there is no file"),
    "folder": (None, "there are no images below"),
}


def make_bad(name, folder):
    path, (content, _) = folder / name, BAD[name]
    if content is not None:
        path.write_bytes(content)
    elif name == "cut.png":
        save(path, ring())
        path.write_bytes(path.read_bytes()[:120])
    elif name == "huge.png":
        Image.new("1", (9000, 9000)).save(path)
    elif name in ("inf.tif", "nan.tif"):
        pixels = ring().astype(np.float32)
        pixels[10, 10] = float(path.stem)
        Image.fromarray(pixels).save(path)
    elif name == "labels.npz":
        np.savez(path, y=np.arange(3))
    elif name == "words.npy":
        np.save(path, np.array(["one", "two"]))
    elif name == "folder":
        path.mkdir()
    return path


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory, mnist_root):
    """A few iterations of both kinds of model."""
    folder = tmp_path_factory.mktemp("checkpoints")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("lenet5-original", "logistic"):
            options = ["--trainer.max_steps=300", "--trainer.limit_test_batches=1"]
            fit.main(["--config", name, "--data.root", str(mnist_root), *options])
    return {path.parts[-4]: path for path in folder.glob("runs/*/*/checkpoints/*.ckpt")}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_alone_end_with_one_line_and_nothing_written(
    name, checkpoints, workplace, tmp_path, capsys
):
    options = ["--ckpt_path", str(checkpoints["lenet5-original"]), "--output", "answers.csv"]
    options += ["--show", "shown", str(make_bad(name, tmp_path))]
    assert BAD[name][1] in refusal(capsys, predict.main, *options)
    assert list(workplace.iterdir()) == []


def test_bad_files_among_good_ones_are_listed_and_the_others_answered(
    checkpoints, workplace, tmp_path, capsys
):
    folder = tmp_path / "pictures"
    folder.mkdir()
    save(folder / "a.png", ring())
    save(folder / "b.png", np.full((30, 30), 255, np.uint8))
    bad = ("cut.png", "photo.avif", "photo.heic", "text.png")
    listed = [make_bad(name, folder).name for name in bad]
    save(folder / "z.png", ring(seed=1))
    (folder / "._z.png").write_bytes(b"\x00\x05\x16\x07")
    with pytest.raises(SystemExit) as stop:
        predict.main(["--ckpt_path", str(checkpoints["lenet5-original"]), str(folder)])
    assert stop.value.code == 1
    out, err = capsys.readouterr()
    rows = list(csv.DictReader(out.splitlines()))
    assert [Path(row["image"]).name for row in rows] == ["a.png", "b.png", "z.png"]
    assert (rows[1]["label"], rows[1]["p0"], rows[1]["reason"]) == ("unsure", "", "no ink")
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == len(listed)
    for name, line in zip(listed, errors, strict=True):
        assert name in line


def test_drawings_of_the_readme_are_labelled_in_csv(checkpoints, workplace, capsys):
    folder = str(REPOSITORY / "docs" / "digits")
    predict.main(["--ckpt_path", str(checkpoints["lenet5-original"]), folder])
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [row["ink"] for row in rows] == ["light", "light", "dark", "dark"]
    for row in rows:
        assert list(row) == [
            "image",
            "ink",
            "label",
            *(f"p{digit}" for digit in range(10)),
            "reason",
        ]
        assert sum(float(row[f"p{digit}"]) for digit in range(10)) == pytest.approx(1, abs=1e-5)


@pytest.mark.slow
def test_names_that_no_console_can_write_are_written_as_numbers(checkpoints, tmp_path):
    names = ("数.png", os.fsdecode(b"\xe9.png"))
    for name in names:
        shutil.copy(REPOSITORY / "docs/digits/chalk-3.png", tmp_path / name)
    common = ("-m", "project.predict", f"--ckpt_path={checkpoints['lenet5-original']}", *names)
    done = python(*common, folder=tmp_path, PYTHONIOENCODING="cp1252")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()[1:]
    assert [line.split(",")[0] for line in lines] == ["\\u6570.png", "\\udce9.png"]
    done = python(*common, "--output=answers.csv", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "answers.csv").read_text("utf-8").splitlines()[1:]
    assert [line.split(",")[0] for line in lines] == ["数.png", "\\udce9.png"]


def test_linear_model_answers_with_its_two_digits_in_json(checkpoints, workplace, mnist_root):
    tests = source.raw_folder(mnist_root) / "t10k-images-idx3-ubyte"
    _, labels = source.load(mnist_root, train=False)
    path = tests if tests.exists() else tests.with_name(f"{tests.name}.gz")
    options = ["--ckpt_path", str(checkpoints["logistic"]), "--format", "json"]
    predict.main([*options, "--output", "answers.json", str(path)])
    records = json.loads((workplace / "answers.json").read_text())
    assert len(records) == 10_000
    right = [r["label"] == y for r, y in zip(records, labels.tolist(), strict=True) if y in (4, 9)]
    assert len(right) == 1991
    assert sum(right) / 1991 > 0.8
    assert set(records[0]["probabilities"]) == {"4", "9"}


@pytest.mark.slow
def test_test_digits_as_pictures_are_told_as_well_as_before(checkpoints, workplace, mnist_root):
    pixels, labels = source.load(mnist_root, train=False)
    for n, picture in enumerate(pixels[:200].numpy()):
        image = Image.fromarray(picture)
        if n % 2:
            image = image.resize((100, 100), Image.Resampling.BILINEAR)
        if n % 4 > 1:
            paper = Image.new("L", (150, 130), 255)
            paper.paste(ImageOps.invert(image), (n % 50, 9))
            image = paper
        image.save(workplace / f"{n:03}.png")
    arguments = ["--ckpt_path", str(checkpoints["lenet5-original"]), "--output=out.csv"]
    predict.main([*arguments, str(workplace)])
    rows = list(csv.DictReader((workplace / "out.csv").read_text().splitlines()))
    likeliest = [max(range(10), key=lambda d, r=r: float(r[f"p{d}"])) for r in rows]
    right = sum(p == y for p, y in zip(likeliest, labels[:200].tolist(), strict=True))
    assert right >= 160  # of a model that has seen half an epoch


TWO_RANKS = ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.accelerator=cpu"]


@pytest.mark.slow
def test_ranks_keep_the_order_of_the_images(checkpoints, workplace, mnist_root):
    pixels, _ = source.load(mnist_root, train=False)
    for n, picture in enumerate(pixels[:7].numpy()):
        save(workplace / f"{n}.png", picture)
    arguments = ["--ckpt_path", str(checkpoints["lenet5-original"]), str(workplace)]
    predict.main([*arguments, "--output=one.csv"])
    done = python("-m", "project.predict", *arguments, "--output=two.csv", *TWO_RANKS)
    assert done.returncode == 0, done.stderr
    one, two = (
        list(csv.reader(Path(f"{name}.csv").read_text().splitlines())) for name in ("one", "two")
    )
    assert [row[:3] for row in two] == [row[:3] for row in one]
    values = (np.float64([row[3:-1] for row in rows[1:]]) for rows in (one, two))
    np.testing.assert_allclose(*values, atol=1e-5)


def test_more_ranks_than_images_are_refused(checkpoints, workplace, capsys):
    picture = str(save(workplace / "one.png", ring()))
    options = ["--ckpt_path", str(checkpoints["lenet5-original"]), *TWO_RANKS]
    line = refusal(capsys, predict.main, *options, picture)
    assert "2 ranks cannot share 1 images" in line


def test_what_the_network_saw_is_shown(checkpoints, workplace, tmp_path):
    picture = save(tmp_path / "ring.png", ring())
    options = ["--show", "seen", "--output", "answers.csv"]
    predict.main(["--ckpt_path", str(checkpoints["lenet5-original"]), *options, str(picture)])
    (shown,) = (workplace / "seen").iterdir()
    assert shown.name == "0001-ring.png.png"
    seen = np.asarray(Image.open(shown))[5::10, 5::10]
    assert np.array_equal(seen, read(picture)[0].pixels)


@pytest.mark.parametrize(("share", "label"), [(0.84, "unsure"), (0.86, 9)])
def test_an_image_is_unlike_any_digit_below_a_probability(share, label):
    digit = reading.Digit("a.png", torch.full((28, 28), 9, dtype=torch.uint8), "dark")
    ten = dict.fromkeys(map(str, range(9)), (1 - share) / 9) | {"9": share}
    answer = predict.record(digit, ten, predict.SURE)
    assert answer["label"] == label
    assert answer["reason"] == ("unlike any digit" if label == "unsure" else "")
    assert predict.record(digit, ten, 0)["label"] == 9
