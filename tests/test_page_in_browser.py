"""The page in a browser: it answers as torch does, asks for nothing, and follows the pen."""

from __future__ import annotations

import base64
import io
import json

import browser as chromium
import numpy as np
import pytest
from handwriting import draw
from helpers import REPOSITORY
from pages import assert_as_torch, assert_read, drawn_by_hand, shipped, thousand
from PIL import Image

from project.page import assemble

BROWSER = chromium.find()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="the variable CHROMIUM names no browser"),
]


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """The shipped networks with today's sources, in a browser."""
    folder = tmp_path_factory.mktemp("browser")
    path = folder / "page.html"
    path.write_text(assemble.assemble(shipped()[0]), encoding="utf-8")
    with chromium.browser(str(BROWSER), folder / "profile") as page:
        page.show(1280, 860)
        page.open(path)
        yield page
        assert page.errors == []


def test_browser_answers_as_torch_does_and_asks_for_nothing(opened, mnist_root):
    content, models = shipped()
    test, labels = thousand(mnist_root)
    text = base64.b64encode(test.numpy().tobytes()).decode()
    answers = opened.run(f"""(() => {{
        const pixels = Uint8Array.from(atob("{text}"), (letter) => letter.charCodeAt(0));
        return lenet.page.networks.map((_, network) =>
            Array.from({{ length: pixels.length / 784 }}, (_, i) =>
                [...lenet.read(network, pixels.subarray(784 * i, 784 * (i + 1))).probabilities]));
    }})()""")
    assert_as_torch(answers, models, content.facts["networks"], test, labels)
    assert all(address.startswith(("file:", "data:")) for address in opened.requests)
    assert len(opened.requests) == 1


def test_digits_drawn_by_hand_are_read(opened):
    assert_read([draw_in(opened, pen, strokes) for _, _, pen, strokes in drawn_by_hand()])


# Of each movement of the pen, until the answer is drawn: since the page hears of it, since when the
# browser dates it; and until the frame with the answer is done.
MEASURE = """{
    const { pad } = lenet.page;
    let heard = 0;
    globalThis.waits = [];
    const move = "pointerrawupdate";
    addEventListener(move, () => (heard = performance.now()), { capture: true });
    const see = pad.onChange;
    pad.onChange = (pixels, isDrawing) => {
        see(pixels, isDrawing);
        if (event?.type !== move) return;
        const [drawn, { timeStamp }] = [performance.now(), event];
        const wait = [drawn - heard, drawn - timeStamp];
        requestAnimationFrame(() => setTimeout(() =>
            waits.push([...wait, performance.now() - timeStamp])));
    };
}"""


def test_answer_follows_the_pen_within_a_frame(opened):
    opened.run(MEASURE)
    for digit in range(10):
        draw_in(opened, *draw(digit, "plain", np.random.default_rng(digit)), in_turn=True)
    waits = np.array(opened.run("waits"))
    for what, each in zip(("work", "since the event", "with its frame"), waits.T, strict=True):
        half, most = np.percentile(each, [50, 95])
        print(f"{len(waits)} answers, {what}: {half:.1f} ms (half), {most:.1f} ms (95 %)")
    # The work alone: what else the machine does is none of the page's doing.
    assert np.median(waits[:, 0]) < 16


def draw_in(page, pen, strokes, *, is_clean=True, in_turn=False):
    """Draws with the mouse; returns the digit that is answered."""
    page.run(f"lenet.page.pad.width = {pen}; if ({int(is_clean)}) lenet.page.pad.clear();")
    left, top, right, _ = box_of(page, "#pad")
    for stroke in strokes:
        page.drag((stroke * (right - left) / 280 + (left, top)).tolist(), in_turn=in_turn)
    return int(page.run("document.querySelector('#verdict b').textContent"))


def box_of(page, selector):
    return page.run(
        f"(() => {{ const box = document.querySelector(`{selector}`).getBoundingClientRect();"
        " return [box.left, box.top, box.right, box.bottom]; })()"
    )


def load(page, picture):
    """Gives the page a file's bytes as a picture; returns what it said meanwhile."""
    text = base64.b64encode(picture).decode()
    return page.run(f"""(async () => {{
        const bytes = Uint8Array.from(atob("{text}"), (letter) => letter.charCodeAt(0));
        const done = lenet.page.read(new Blob([bytes], {{ type: "image/png" }}));
        const said = document.querySelector("#source").textContent;
        await done;
        return said;
    }})()""")


def text_of(page, selector):
    return page.run(f"document.querySelector(`{selector}`).textContent")


@pytest.mark.parametrize("name", ["chalk-3", "chalk-7", "pencil-4", "pencil-9"])
def test_picture_is_read(name, opened):
    opened.run("lenet.page.pad.clear()")
    said = load(opened, (REPOSITORY / f"docs/digits/{name}.png").read_bytes())
    assert said.startswith("Reading the picture")
    assert text_of(opened, "#verdict b") == name[-1]
    assert text_of(opened, "#source") == "The ink found in the picture"
    assert opened.run("document.querySelector('#hint').hidden")


@pytest.mark.parametrize("picture", ["empty", "broken"])
def test_picture_without_a_digit_takes_the_last_answer_away(picture, opened):
    opened.run("lenet.page.step(1, () => true)")
    before = text_of(opened, "#verdict b"), text_of(opened, "#source")
    blank = io.BytesIO()
    Image.new("L", (200, 200), 255).save(blank, "PNG")
    load(opened, blank.getvalue() if picture == "empty" else b"no picture")
    assert text_of(opened, "#verdict b") == "?"
    assert "picture" in text_of(opened, "#verdict span")
    assert text_of(opened, "#bars").split() == [str(digit) for digit in range(10)]
    opened.run("lenet.page.pad.undo()")
    assert (text_of(opened, "#verdict b"), text_of(opened, "#source")) == before


def test_strokes_are_taken_back_one_by_one(opened):
    opened.run("lenet.page.pad.clear(); lenet.page.step(1, () => true)")
    before = opened.run("[...lenet.page.pixels]")
    draw_in(opened, *draw(4, "plain", np.random.default_rng(0)), is_clean=False)
    assert opened.run("lenet.page.pad.drawing.strokes.length") == 3
    for _ in range(3):
        opened.run("document.querySelector('#undo').click()")
    assert opened.run("[...lenet.page.pixels]") == before


def test_keys_draw_too(opened):
    keys = json.dumps([" ", *["ArrowDown"] * 10, " "])
    opened.run(f"""{{
        lenet.page.pad.clear();
        document.querySelector("#pad").focus();
        for (const key of {keys}) document.activeElement.dispatchEvent(
            new KeyboardEvent("keydown", {{ key, bubbles: true }}));
    }}""")
    assert opened.run("document.querySelector('#verdict b').textContent") == "1"


# A pen of which the page hears what a browser would tell it.
PEN = """{
    const { pad } = lenet.page;
    const box = pad.canvas.getBoundingClientRect();
    pad.canvas.setPointerCapture = () => {};
    globalThis.pen = (name, x) => pad.canvas.dispatchEvent(new PointerEvent(`pointer${name}`, {
        pointerId: 7, button: 0, clientX: box.left + x, clientY: box.top + 50, cancelable: true }));
    globalThis.key = (key) => pad.canvas.dispatchEvent(
        new KeyboardEvent("keydown", { key, bubbles: true }));
}"""
DRAWN = "lenet.page.pad.drawing.strokes.map(({ points }) => points.length / 2)"


@pytest.mark.parametrize(
    ("meanwhile", "left"),
    [("key('c')", []), ("key('z')", [2]), ("lenet.page.step(1, () => true)", [])],
)
def test_what_takes_a_stroke_away_while_it_is_drawn_ends_it(meanwhile, left, opened):
    opened.run(PEN)
    opened.run("lenet.page.pad.clear(); pen('down', 10); pen('rawupdate', 20); pen('up', 20)")
    opened.run(f"pen('down', 50); pen('rawupdate', 60); {meanwhile}")
    opened.run("pen('rawupdate', 90); pen('up', 90)")
    assert opened.run(DRAWN) == left


def test_keys_and_the_pen_take_turns(opened):
    opened.run(PEN)
    opened.run("lenet.page.pad.clear(); key(' '); key('ArrowLeft'); pen('down', 50)")
    opened.run("key('ArrowLeft'); key(' '); pen('rawupdate', 60); pen('up', 60)")
    assert opened.run(DRAWN) == [2, 2]


@pytest.mark.parametrize("width", [320, 390, 820, 1101, 1280, 1920])
def test_nothing_is_wider_than_the_window(width, opened):
    opened.show(width, 844)
    for network in range(opened.run("lenet.page.networks.length")):
        opened.run(f"lenet.page.choose({network})")
        assert opened.run("document.documentElement.scrollWidth") <= width
    opened.show(1280, 860)


def test_pointing_at_a_map_lights_what_it_reads(opened):
    opened.run("lenet.page.choose(0)")
    left, top, right, bottom = box_of(opened, "button[data-layer=c3][data-map='6']")
    opened.move((left + right) / 2, (top + bottom) / 2)
    lit = opened.run("""[...document.querySelectorAll("[data-map].lit")].map((each) =>
        [each.tagName, each.dataset.layer, Number(each.dataset.map)])""")
    assert ["TR", "c3", 6] in lit
    assert [source for _, layer, source in lit if layer == "s2"] == [0, 1, 2, 3]
    assert opened.run("document.querySelectorAll('#weights figure').length") == 4
    assert opened.run("document.querySelectorAll('button.lit i').length") == 1 + 4 + 4 + 1
