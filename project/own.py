"""User-defined experiments: a class, or a pair of classes, that can be imported."""

from __future__ import annotations

import difflib
import importlib
import sys
from typing import Any, TypeGuard

from lightning.pytorch import LightningDataModule, LightningModule

from data import MNISTDataModule
from models.classifier import Classifier
from project.errors import UserError

Experiment = tuple[type[LightningModule], type[LightningDataModule]]
"""The classes of a model and of the data that it is trained on."""


def is_own(name: object) -> TypeGuard[str]:
    """Whether a name is a dotted name to import, such as mine.Net."""
    return isinstance(name, str) and "." in name and all(map(str.isidentifier, name.split(".")))


def find(name: str) -> Experiment:
    """Imports an experiment: a pair (model, data), or a model, which is trained on MNIST.

    Raises:
        UserError: it cannot be imported, or is neither.
    """
    place, _, attribute = name.rpartition(".")
    module = _import(place)
    if not hasattr(module, attribute):
        near = difflib.get_close_matches(attribute, vars(module), n=1)
        hint = f"; did you mean {place}.{near[0]}?" if near else "."
        raise UserError(f"{place} ({module.__file__}) has no {attribute}{hint}")
    found = getattr(module, attribute)
    is_pair = isinstance(found, tuple) and len(found) == 2
    model, data = found if is_pair else (found, MNISTDataModule)
    for kind, base in ((model, Classifier), (data, MNISTDataModule)):
        if not (isinstance(kind, type) and issubclass(kind, base)):
            raise UserError(
                f"{name} must be a class derived from models.classifier.Classifier, or a pair of "
                f"one and another derived from data.MNISTDataModule; {kind!r} is none."
            )
    return model, data


def _import(place: str) -> Any:
    if "" not in sys.path:
        sys.path.append("")  # the current folder, which python -P leaves out
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        raise UserError(
            f"{place} cannot be imported: {error}; modules are looked for in the current folder "
            "and in those of PYTHONPATH."
        ) from error
    except Exception as error:
        raise UserError(f"{place} cannot be imported: {type(error).__name__}: {error}") from error
