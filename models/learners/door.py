"""The door of the fast learners: what is trained is what is written, or another learner trains it.

A class names in `learners` those that compute exactly what it does. Each check answers for one
model, of that class or one derived from it, with a sentence on what is different, or with None.
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
    """Names a method that a subclass or this model has of its own."""
    places: list[Any] = [model, *_derived(model)]
    for place, name in ((place, name) for place in places for name in names):
        own = vars(place).get(name)
        # Lightning's ranks leave the class's own behind, as an attribute.
        if own is not None and getattr(own, "__func__", None) is not getattr(type(model), name):
            owner = type(model).__name__ if place is model else place.__name__
            return f"{owner} has its own {name}"
    return None


def other_targets(model: Classifier) -> str | None:
    """Says that something else is learnt than the labels."""
    if own := own_part(model, ("targets",)):
        return own
    return "there are teachers" if model.teachers else None


def another_net(
    model: Classifier, kind: type[nn.Module], layers: Mapping[str, type[nn.Module]]
) -> str | None:
    """Names what is not a `kind` of these layers, as it comes, with all its parameters learnt.

    Args:
        model: its `net` is looked at.
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
    """Names a module that calls more than its class's own `forward`."""
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
    """Says what is not a step against the gradient, by the rates of `learning_rates`.

    Args:
        model: its `net` is what must be learnt.
        run: has the optimizer.
        known: what the step may have beside its rate, of the fields of `Update`.
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
    """Whether `learning_rates` is what the model says last about them.

    It is unless a subclass has an optimizer of its own, and no `learning_rates`.
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
    """The classes of the model that say more than the one that names its learners."""
    return list(takewhile(lambda kind: "learners" not in vars(kind), type(model).__mro__))


def _declared(model: Classifier) -> type[Classifier]:
    """The class that names the model's learners."""
    declared: type[Classifier] = type(model).__mro__[len(_derived(model))]
    return declared
