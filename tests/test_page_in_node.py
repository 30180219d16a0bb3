"""The page's arithmetic, by Node: as torch and Python compute it, and what it makes of drawings."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess

import marks
import numpy as np
import photographed
import pytest
import torch
from pages import (
    assert_as_torch,
    assert_read,
    digits,
    drawn_by_hand,
    page_of,
    shipped,
    thousand,
    untrained,
)
from PIL import Image, ImageDraw

from data.images import reading
from data.images.centre import like_mnist
from project import export
from project.page.assemble import script

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="there is no node on PATH")


def in_node(modules, body, given):
    """Runs modules of the page, and a body that makes `answer` of what is `given`."""
    text = "\n".join(map(script, modules))
    text += f"""
        import {{ readFileSync }} from "node:fs";
        const given = JSON.parse(readFileSync(0, "utf8"));
        {body}
        console.log(JSON.stringify(answer));
    """
    done = subprocess.run(
        [NODE, "--input-type=module", "-e", text],
        input=json.dumps(given),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


NETWORKS = """
    const { networks } = await load(given.facts, given.data);
    const pixels = Uint8Array.from(atob(given.pixels), (letter) => letter.charCodeAt(0));
    const answer = networks.map((network) =>
        Array.from({ length: pixels.length / 784 }, (_, i) =>
            [...run(network, pixels.subarray(784 * i, 784 * (i + 1))).probabilities]));
"""


def as_given(content, test):
    return {
        "facts": json.dumps(content.facts),
        "data": base64.b85encode(content.data).decode(),
        "pixels": base64.b64encode(test.numpy().tobytes()).decode(),
    }


def probabilities_in_node(content, test):
    return in_node(["numbers.js", "network.js"], NETWORKS, as_given(content, test))


def test_networks_answer_as_torch_does():
    test = digits(30, seed=1)
    models = [untrained()[name] for name in ("original", "standardized", "1998", "linear")]
    for model in models[:1], models[1:2], models[2:]:
        answers = probabilities_in_node(page_of(*model), test)
        for each, got in zip(model, answers, strict=True):
            with torch.no_grad():
                _, expected = export.Portable(each)(each.inputs(test))
            assert (torch.tensor(got) - expected).abs().max() < 1e-5


def test_shipped_networks_answer_as_torch_does_in_node(mnist_root):
    content, models = shipped()
    test, labels = thousand(mnist_root)
    answers = probabilities_in_node(content, test)
    assert_as_torch(answers, models, content.facts["networks"], test, labels)


def test_digits_drawn_by_hand_are_read():
    body = f"""{NETWORKS.replace("const answer", "const unused")}
    const answer = given.drawings.map((strokes) => {{
        const ink = likeMnist(rasterOf({{ strokes, picture: null }}), SIDE, SIDE);
        const {{ probabilities }} = run(networks[0], ink);
        return probabilities.indexOf(Math.max(...probabilities));
    }});"""
    drawings = [
        [{"width": pen, "points": stroke.ravel().tolist()} for stroke in strokes]
        for _, _, pen, strokes in drawn_by_hand()
    ]
    given = as_given(shipped()[0], torch.empty(0, dtype=torch.uint8)) | {"drawings": drawings}
    modules = ["numbers.js", "network.js", "strokes.js", "preprocessing.js"]
    assert_read(in_node(modules, body, given))


def drawings():
    """Greys (H, W) as people make them: light and dark ink, off centre, small, touching an edge."""
    generator = np.random.default_rng(0)
    for i in range(24):
        height, width = generator.integers(30, 280, 2).tolist()
        paper, ink = ((250, 10) if i % 2 else (5, 240)) if i % 3 else (200, 90)
        picture = Image.new("L", (width, height), paper)
        corners = [tuple((generator.random(2) * (width, height)).tolist()) for _ in range(5)]
        ImageDraw.Draw(picture).line(corners, fill=ink, width=int(generator.integers(1, 20)))
        yield np.asarray(picture, np.uint8)


def test_digits_are_centred_as_python_does():
    inks = [np.where(grey > 128, grey, 0).astype(np.float32) / 255 for grey in drawings()]
    body = """const answer = given.map(([ink, width, height]) =>
        [...centred({ width, height, values: Float32Array.from(ink) })]);"""
    given = [(ink.ravel().tolist(), ink.shape[1], ink.shape[0]) for ink in inks]
    for ink, got in zip(inks, in_node(["preprocessing.js"], body, given), strict=True):
        expected = like_mnist(ink).flatten().tolist()
        assert np.abs(np.subtract(got, expected)).max() <= 1


def test_empty_sheet_has_no_pixels():
    body = "const answer = likeMnist(new Uint8Array(100), 10, 10);"
    assert in_node(["preprocessing.js"], body, None) is None


def test_receptive_fields_are_those_of_the_layers():
    body = """
    const layers = { input: { size: 28 }, c1: { size: 28 }, s2: { size: 14 }, c3: { size: 10 } };
    const box = { top: 4, left: 4, height: 1, width: 1 };
    const answer = fieldsOf(given, layers, "c3", 6, box).map(({ layer, maps, box }) =>
        [layer, maps, Object.values(box)]);"""
    network = page_of(untrained()["original"]).facts["networks"][0]
    assert in_node(["connections.js"], body, network) == [
        ["c3", [6], [4, 4, 1, 1]],
        ["s2", [0, 1, 2, 3], [4, 4, 5, 5]],
        ["c1", [0, 1, 2, 3], [8, 8, 10, 10]],
        ["input", [0], [6, 6, 14, 14]],
    ]


SHOTS = ["box", "hand_shadow", "transparent_light", "two_digits"]


def test_photographs_are_seen_as_python_does(tmp_path):
    pictures = []
    for n, style in enumerate(SHOTS):
        rng = np.random.default_rng(n)
        path = photographed.save(tmp_path / style, shot_of(style, rng))
        pictures.append((path, Image.open(path).convert("RGBA")))
    body = """const answer = given.map(([text, width, height]) => {
        const rgba = Uint8ClampedArray.from(atob(text), (letter) => letter.charCodeAt(0));
        const seen = look(coloursOf(rgba, width, height));
        return seen.map(({ pixels, reason }) => [[...pixels], reason]);
    });"""
    given = [(base64.b64encode(p.tobytes()).decode(), *p.size) for _, p in pictures]
    answers = in_node(["photograph.js"], body, given)
    for (path, _), got in zip(pictures, answers, strict=True):
        expected = reading.read([path], several=True).digits
        assert [reason for _, reason in got] == [digit.reason for digit in expected]
        for (pixels, _), digit in zip(got, expected, strict=True):
            gap = np.abs(np.reshape(pixels, (28, 28)) - digit.pixels.numpy().astype(int))
            print(f"{path.name}: {gap.max()} of 255 at most")
            assert gap.max() <= 16


def shot_of(style, rng):
    return photographed.STYLES[style](rng, marks.penned(marks.DIGITS[5], rng))
