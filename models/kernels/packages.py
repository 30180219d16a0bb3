"""The packages that compile kernels: whether they are installed and can be imported."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

import torch

from models.kernels.trust import one_line

NEEDS = {"cpu": "numba", "cuda": "triton"}
"""The package that compiles for each type of device."""

# Looked for once: torch.compile of torch 2.11 does not trace through find_spec.
MISSING = {name for name in NEEDS.values() if find_spec(name) is None}

# The module whose import shows whether the package can be used.
PROBES = {"numba": "models.kernels.compiled", "triton": "triton"}

_failures: dict[str, str | None] = {}
"""By package, why its import failed in this process; None if it succeeded."""


def lack(name: str) -> str | None:
    """Why a package cannot be used; None if it can. The first call imports it."""
    if name in MISSING:
        return f"{name} is not installed"
    if name not in _failures and not torch.compiler.is_compiling():
        _failures[name] = _failure(name)
    return _failures.get(name)


def _failure(name: str) -> str | None:
    try:
        import_module(PROBES[name])
    except Exception as error:  # such as Numba's for a NumPy that it does not support
        return f"{name} cannot be imported ({one_line(error)})"
    return None
