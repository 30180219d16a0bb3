"""Hooks that are registered for every module of the process."""

from __future__ import annotations

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
