"""The content of a page: networks' facts and weights, test digits and torch's answers."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from models import nets
from models.classifier import Classifier
from models.kernels.table import full_table
from models.lenet import LeNet5
from models.lenet1998 import LeNet1998
from models.linear import Linear

# Number of connections of the modern C3.
MODERN = sum(map(len, nets.C3_TABLES["modern"]))
# Numbers of test digits in a page: of each digit, and of those that a network gets wrong.
EACH, WRONG = 8, 30

Net = Callable[[Tensor], Sequence[Tensor]]


class Trained(NamedTuple):
    """A network as it goes into a page, with the images that it is tested on."""

    name: str
    """Name of its run."""
    model: Classifier
    net: Net
    """Inputs of the model -> outputs, and probabilities."""
    digits: tuple[int, ...]
    """The digit of each class."""
    images: Tensor
    """(N, 28, 28) uint8, for the test."""
    labels: Tensor
    """(N,), as the model has them."""
    saved_at: float
    """Time of saving in seconds since 1970; 0 if unknown."""


class Tested(NamedTuple):
    """The results of a network on its test images."""

    true: Tensor
    """(N,) digits."""
    is_right: Tensor
    """(N,) bool."""


class Content(NamedTuple):
    """The content that is inserted into a page's sources."""

    facts: dict[str, Any]
    """For JSON: the networks, the digits' labels, and how many floats there are."""
    data: bytes
    """Deflated: weights and torch's answers as planes of float32, then the digits' pixels."""


def content(networks: Sequence[Trained]) -> Content:
    """Tests the networks, and returns the content of a page.

    Args:
        networks: one or more; the test digits are those of the one with the most digits.
    """
    tested = [_test(network) for network in networks]
    widest = max(range(len(networks)), key=lambda i: len(networks[i].digits))
    images, true = networks[widest].images, tested[widest].true
    alike = [t for t in tested if len(t.true) == len(true)]
    wrong = ~torch.stack([t.is_right for t in alike]).all(0)
    index = chosen(true, wrong)
    parts, facts = [], []
    for network, result in zip(networks, tested, strict=True):
        weights = tensors(network.model)
        weights["answers"] = _ask(network, images[index])[1].float()
        parts += [tensor.flatten() for tensor in weights.values()]
        lengths = [[name, tensor.numel()] for name, tensor in weights.items()]
        facts.append(_facts(network, result) | {"lengths": lengths})
    floats = torch.cat(parts)
    digits = {"labels": true[index].tolist(), "wrong": wrong[index].tolist()}
    return Content(
        {"networks": facts, "digits": digits, "floats": len(floats)},
        pack(floats, images[index]),
    )


def pack(floats: Tensor, digits: Tensor) -> bytes:
    """Deflates float32 (F,) as four planes, lowest bytes first, followed by uint8 digits."""
    planes = floats.numpy().astype("<f4").view(np.uint8).reshape(-1, 4).T
    return zlib.compress(planes.tobytes() + digits.numpy().tobytes(), 9)


def unpack(data: bytes, floats: int) -> tuple[Tensor, Tensor]:
    """Returns what `pack` was given: that many floats, and digits (N, 28, 28)."""
    raw = np.frombuffer(zlib.decompress(data), np.uint8)
    planes = raw[: 4 * floats].reshape(4, floats)
    numbers = np.ascontiguousarray(planes.T).view("<f4").ravel().astype(np.float32)
    return torch.from_numpy(numbers), torch.from_numpy(raw[4 * floats :].copy()).view(-1, 28, 28)


def tensors(model: Classifier) -> dict[str, Tensor]:
    """Returns all tensors of a network by name, including the drawn digits of LeNet1998."""
    named = dict(model.net.state_dict())
    if isinstance(model, LeNet1998):
        named["codes"] = model.net.codes
    return {name: tensor.detach().cpu().float() for name, tensor in named.items()}


def as_in_page(model: Classifier) -> Classifier | None:
    """Returns what a page computes with the model's weights; None for an unknown network."""
    weights = model.net.state_dict()
    plain: Classifier
    if isinstance(model, Linear):
        plain = Linear()
    elif isinstance(model, LeNet1998):
        plain = LeNet1998()
    elif isinstance(model, LeNet5):
        c3: nets.C3 = "modern" if len(weights.get("c3.weight", ())) == MODERN else "original"
        plain = LeNet5(c3, standardize=model.standardize, classes=len(model.labels))
    else:
        return None
    try:
        plain.net.load_state_dict(weights)
    except RuntimeError:
        return None
    return plain


def chosen(true: Tensor, wrong: Tensor) -> Tensor:
    """Returns positions of a page's test images: the first of each digit, and hard ones.

    Args:
        true: (N,) digits.
        wrong: (N,) bool, whether a network reads another one.
    """
    first = [torch.nonzero(true == digit)[:EACH, 0] for digit in set(true.tolist())]
    every = torch.cat([*first, torch.nonzero(wrong)[:WRONG, 0]])
    return torch.tensor(sorted(set(every.tolist())))


def _test(network: Trained, batch: int = 1000) -> Tested:
    true, is_right = [], []
    for start in range(0, len(network.labels), batch):
        labels = network.labels[start : start + batch]
        outputs, _ = _ask(network, network.images[start : start + batch])
        predicted, classes = network.model.predicted_and_true(outputs, labels)
        true.append(torch.tensor(network.digits)[classes])
        is_right.append(predicted == classes)
    return Tested(torch.cat(true), torch.cat(is_right))


def _ask(network: Trained, images: Tensor) -> Sequence[Tensor]:
    with torch.no_grad():
        return network.net(network.model.inputs(images))


def _facts(network: Trained, tested: Tested) -> dict[str, Any]:
    day = datetime.fromtimestamp(network.saved_at, UTC)
    return {
        "name": network.name,
        "digits": list(network.digits),
        "correct": int(tested.is_right.sum()),
        "total": len(tested.is_right),
        "parameters": sum(parameter.numel() for parameter in network.model.parameters()),
        "date": f"{day.day} {day:%B %Y}" if network.saved_at else None,
        **_arithmetic(network.model),
    }


def _arithmetic(model: Classifier) -> dict[str, Any]:
    """Returns what the page computes with, beside the weights."""
    if isinstance(model, Linear):
        return {"kind": "linear", "paper": 0, "ink": 255, "tables": {}}
    assert isinstance(model, LeNet5 | LeNet1998)
    kind = "lenet5" if isinstance(model, LeNet5) else "lenet5-1998"
    design = model.design
    tables = {"c1": full_table(1, 6), "c3": _table(model.net)}
    return {"kind": kind, "paper": design.paper, "ink": design.ink, "tables": tables}


def _table(net: nets.LeNet5 | nets.LeNet1998) -> list[list[int]]:
    table: list[list[int]] = [[] for _ in net.c3.bias]
    for output, source in net.c3.connections.tolist():
        table[output].append(source)
    return table
