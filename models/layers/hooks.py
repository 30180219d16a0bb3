"""Hooks that are registered for a module, or for every module of the process."""

from __future__ import annotations

from torch import nn
from torch.nn.modules import module

# torch's own check, `_has_any_global_hook`, is not in torch 2.6 yet.
EVERYWHERE = (
    "_global_forward_hooks",
    "_global_forward_pre_hooks",
    "_global_backward_hooks",
    "_global_backward_pre_hooks",
)


def any_everywhere() -> bool:
    """Whether a hook is registered for all modules."""
    return any(getattr(module, name) for name in EVERYWHERE)


def has_hook(layer: nn.Module) -> bool:
    """Whether a hook is registered for this module."""
    return any(
        (
            layer._forward_hooks,
            layer._forward_pre_hooks,
            layer._backward_hooks,
            layer._backward_pre_hooks,
        )
    )
