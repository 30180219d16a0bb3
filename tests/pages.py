"""Pages to test: of untrained networks, and the one of the documentation."""

from __future__ import annotations

import functools

import lightning
import numpy as np
import torch
from handwriting import STYLES, draw
from helpers import REPOSITORY

from data import source
from models.lenet import LeNet5
from models.lenet1998 import LeNet1998
from models.linear import Linear
from project import export
from project.page import assemble, contents
from project.page.contents import Trained

SHIPPED = REPOSITORY / "docs/lenet5.html"
MODELS = {
    "original": LeNet5,
    "standardized": lambda: LeNet5(standardize=True),
    "modern": lambda: LeNet5(c3="modern"),
    "1998": LeNet1998,
    "linear": lambda: Linear(scale=1 / 255),
}


def digits(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 28, 28), generator=generator, dtype=torch.uint8)
    return images * (torch.rand(count, 28, 28, generator=generator) > 0.7)


def trained(name, model, test):
    """A model as if it had been trained, tested on images that are not digits."""
    classes = (4, 9) if isinstance(model, Linear) else tuple(range(10))
    labels = torch.arange(len(test)) % len(classes)
    labels = 2 * labels - 1 if isinstance(model, Linear) else labels
    return Trained(name, model, export.Portable(model), classes, test, labels, 1e9)


@functools.cache
def untrained():
    """One of each kind, by name."""
    lightning.seed_everything(0, verbose=False)
    return {name: make() for name, make in MODELS.items()}


def page_of(*models, test=None):
    test = digits(60) if test is None else test
    return contents.content([trained(str(i), model, test) for i, model in enumerate(models)])


def weights_in(content):
    """The tensors of each network, by name, flat."""
    floats, _ = contents.unpack(content.data, content.facts["floats"])
    found = []
    for network in content.facts["networks"]:
        names, lengths = zip(*network["lengths"], strict=True)
        parts, floats = floats[: sum(lengths)].split(lengths), floats[sum(lengths) :]
        found.append(dict(zip(names, parts, strict=True)))
    assert not len(floats)
    return found


def shipped():
    """The networks of docs/lenet5.html with today's sources, and as torch has them."""
    content = assemble.content_of(SHIPPED.read_text(encoding="utf-8"))
    networks = zip(content.facts["networks"], weights_in(content), strict=True)
    return content, [model_of(*network) for network in networks]


def model_of(network, tensors):
    if network["kind"] == "linear":
        model = Linear(scale=1.0)
    elif network["kind"] == "lenet5-1998":
        model = LeNet1998()
    else:
        model = LeNet5(
            c3="original" if sum(map(len, network["tables"]["c3"])) == 60 else "modern",
            standardize=network["paper"] != 0,
        )
    state = {name: tensors[name].view_as(t) for name, t in model.net.state_dict().items()}
    model.net.load_state_dict(state)
    return model


def assert_as_torch(answers, models, networks, test, labels):
    for got, model, network in zip(answers, models, networks, strict=True):
        with torch.no_grad():
            _, expected = export.Portable(model)(model.inputs(test))
        got = torch.tensor(got, dtype=torch.float64)
        gap = float((got - expected).abs().max())
        classes = torch.tensor(network["digits"])
        right, torchs = ((classes[p.argmax(1)] == labels).sum().item() for p in (got, expected))
        print(f"{network['name']}: {gap:.1e} at most, {right} right as by torch")
        assert gap <= 1e-5
        assert right == torchs


def thousand(root):
    images, labels = source.load(root, train=False)
    return images[:1000], labels[:1000].long()


def drawn_by_hand():
    """200 digits, each with its style, pen and strokes."""
    generator = np.random.default_rng(0)
    for style in STYLES:
        for digit in range(10):
            for _ in range(5):
                yield digit, style, *draw(digit, style, generator)


def assert_read(answers):
    drawn = [(digit, style) for digit, style, *_ in drawn_by_hand()]
    wrong = [(*each, got) for each, got in zip(drawn, answers, strict=True) if each[0] != got]
    print(f"{len(drawn) - len(wrong)} of {len(drawn)} right, wrong: {wrong}")
    assert len(wrong) <= 0.05 * len(drawn)
