"""Eligibility checks of the fast learners: each trains only a model that it computes exactly.

A class names in `learners` those that compute exactly what it defines. Each check looks at a model
of that class, or of one derived from it, and returns a sentence on what differs, or None.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from models.kernels.update import Update
from models.layers.hooks import any_everywhere, has_hook
from models.learners.learner import Run

if TYPE_CHECKING:
    from models.classifier import Classifier


def own_part(model: Classifier, names: Sequence[str]) -> str | None:
    """Names a method that a subclass or this instance overrides."""
    places: list[Any] = [model, *_derived(model)]
    for place, name in ((place, name) for place in places for name in names):
        own = vars(place).get(name)
        # On several ranks, Lightning leaves the class's own method behind as an attribute.
        if own is not None and getattr(own, "__func__", None) is not getattr(type(model), name):
            owner = type(model).__name__ if place is model else place.__name__
            return f"{owner} has its own {name}"
    return None


def other_targets(model: Classifier) -> str | None:
    """Says if the targets are not the labels."""
    if own := own_part(model, ("targets",)):
        return own
    return "there are teachers" if model.teachers else None


def another_net(
    model: Classifier, kind: type[nn.Module], layers: Mapping[str, type[nn.Module]]
) -> str | None:
    """Describes how the network is not an unmodified, fully trainable `kind` of these layers.

    Args:
        model: its `net` is checked.
        kind: exact class of the network.
        layers: the exact class of each layer, by name; each has a weight and a bias.
    """
    found = {name: type(layer) for name, layer in model.net.named_modules()}
    for name in {"": kind, **layers, **found}:
        expected = layers.get(name) if name else kind
        if found.get(name) is not expected:
            have = found[name].__name__ if name in found else "missing"
            return f"{f'net.{name}' if name else 'net'} is {have}"
    names = [name for name, _ in model.net.named_parameters()]
    if names != [f"{layer}.{part}" for layer in layers for part in ("weight", "bias")]:
        return f"the parameters of net are {', '.join(names)}"
    return _observer(model) or next(_unusual_parameters(model.net), None)


def _observer(model: Classifier) -> str | None:
    """Names a module whose call does more than its class's `forward`."""
    if any_everywhere():
        return "there is a hook for all modules"
    for name, layer in [("the model", model), *model.net.named_modules(prefix="net")]:
        if has_hook(layer):
            return f"{name} has a hook"
    for name, layer in model.net.named_modules(prefix="net"):
        for attribute in vars(layer):
            if callable(getattr(type(layer), attribute, None)):
                return f"{name} has its own {attribute}"
    return None


def _unusual_parameters(net: nn.Module) -> Iterator[str]:
    for name, parameter in net.named_parameters(prefix="net"):
        if not parameter.requires_grad:
            yield f"{name} is frozen"
        if parameter._backward_hooks or parameter._post_accumulate_grad_hooks:
            yield f"{name} has a hook"
        if not parameter.is_contiguous():
            yield f"{name} is not contiguous"


def another_descent(model: Classifier, run: Run, *, known: Sequence[str] = ()) -> str | None:
    """Describes how a step is not SGD on `net` with the rates of `learning_rates`.

    Args:
        model: its `net` has the parameters that the optimizer must have.
        run: the training, with the optimizer.
        known: the fields of `Update` that the step may use.
    """
    optimizer = run.optimizer
    if not run.is_scheduled:
        return "the optimizer has learning rates of its own"
    if type(optimizer) is not torch.optim.SGD:
        return f"the optimizer is {type(optimizer).__name__}"
    (group, *more) = optimizer.param_groups
    parameters = list(model.net.parameters())
    if more or [*map(id, group["params"])] != [*map(id, parameters)]:
        return "the optimizer has other parameters than net, or groups of them"
    for name in (*Update._fields, "dampening", "maximize", "differentiable"):
        if group[name] and name not in known:
            return f"the optimizer has {name}"
    hooks = optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks
    if any(hooks) or "step" in vars(optimizer):
        return "the optimizer has a hook"
    return None


def is_scheduled(model: Classifier, optimizer: torch.optim.Optimizer | None) -> bool:
    """Whether the learning rates are those of `learning_rates`, not the optimizer's.

    They are, unless a subclass has an optimizer of its own and does not override `learning_rates`.
    """
    if optimizer is None:
        return False
    if own_part(model, ("learning_rates",)):
        return True
    made: Any = _declared(model).configure_optimizers(model)
    return (
        type(optimizer) is type(made)
        and len(optimizer.param_groups) == 1
        and all(optimizer.param_groups[0].get(k) == v for k, v in made.defaults.items())
    )


def _derived(model: Classifier) -> list[type]:
    """The classes of the model that are derived from the one that names its learners."""
    return list(takewhile(lambda kind: "learners" not in vars(kind), type(model).__mro__))


def _declared(model: Classifier) -> type[Classifier]:
    """The class that names the model's learners."""
    declared: type[Classifier] = type(model).__mro__[len(_derived(model))]
    return declared
