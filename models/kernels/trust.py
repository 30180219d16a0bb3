"""Trust after proof: a compiled kernel is used only once it has given the reference's numbers.

A kernel that is wrong, raises or cannot be compiled is reported in one line, and a fallback runs.
Verdicts are kept beside the compiled code, by device, driver, versions and sources; but a kernel
that raised is tried again by the next process, since the cause may be gone, unless it stopped the
device.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import torch

from models.kernels import machine

Errors = Mapping[str, float]
"""Relative errors of results, by name."""


class Kernel(NamedTuple):
    """A compiled kernel, and how to compare it with the reference."""

    name: str
    errors: Callable[[torch.device], Errors]
    """Runs the kernel on random data, and compares the results."""
    bound: float
    """The largest error that rounding in float32 explains."""


class Verdict(NamedTuple):
    """The result of a proof."""

    errors: Errors
    """Empty if the kernel did not run."""
    obstacle: str | None
    """Why the kernel must not be used; None if it may."""


class DeviceLostError(RuntimeError):
    """After a fault of a kernel the process cannot use the device any more; the next one can."""


_verdicts: dict[tuple[str, torch.device], Verdict | None] = {}
"""Verdicts known to this process; None if an earlier one kept none."""

_told: set[tuple[str, torch.device]] = set()


def find_obstacle(kernel: Kernel, device: torch.device, *, proving: bool) -> str | None:
    """Why a kernel must not be used on a device.

    Args:
        kernel: the kernel.
        device: the device.
        proving: whether a proof that is still due is made; without it nothing speaks against the
            kernel yet.

    Raises:
        DeviceLostError: the proof has left the device unusable.
    """
    key = kernel.name, device
    if not torch.compiler.is_compiling():
        if key not in _verdicts:
            _verdicts[key] = _read(kernel, device)
        if proving and _verdicts[key] is None:
            prove(kernel, device)
    verdict = _verdicts.get(key)
    return verdict.obstacle if verdict else None


def obstacle(kernel: Kernel, device: torch.device, *, proving: bool = True) -> str | None:
    """Same as `find_obstacle`, and reports it once."""
    found = find_obstacle(kernel, device, proving=proving)
    if found is not None:
        tell(kernel, device, found)
    return found


def tell(kernel: Kernel, device: torch.device, found: str) -> None:
    """Reports once that a kernel is not used, and why."""
    key = kernel.name, device
    if key not in _told and not torch.compiler.is_compiling():
        _told.add(key)
        name = machine.describe(device)
        print(f"Not using the {kernel.name} on {name}, so slower: {found}", file=sys.stderr)


def prove(kernel: Kernel, device: torch.device) -> Verdict:
    """Compares a kernel with the reference, whatever was found before, and keeps the verdict."""
    verdict = _verdicts[kernel.name, device] = _prove(kernel, device)
    return verdict


def _prove(kernel: Kernel, device: torch.device) -> Verdict:
    try:
        with torch.inference_mode(False), torch.autocast(device.type, enabled=False):
            errors = dict(kernel.errors(device))
    except Exception as error:  # compilers may raise anything
        verdict = Verdict({}, one_line(error))
        if not _answers(device):
            _keep(kernel, device, verdict)
        check_device(device, f"{kernel.name}: {verdict.obstacle}")
        return verdict
    verdict = Verdict(errors, _judge(errors, kernel.bound))
    _keep(kernel, device, verdict)
    return verdict


def _judge(errors: Errors, bound: float) -> str | None:
    wrong = [f"{name} by {error:.1e}" for name, error in errors.items() if not error <= bound]
    return f"it is off, {', '.join(wrong)} where {bound:.0e} is allowed" if wrong else None


def one_line(error: Exception) -> str:
    """The class of an exception, and the first line of its message."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def check_device(device: torch.device, cause: str) -> None:
    """Checks that a device has survived an error.

    Raises:
        DeviceLostError: the device does not compute any more.
    """
    if not _answers(device):
        raise DeviceLostError(
            f"the device has stopped ({cause}); start again: what was proved wrong is left out"
        )


def _answers(device: torch.device) -> bool:
    """Whether the device still computes: after some faults all further calls of a process fail."""
    try:
        return torch.ones((), device=device).item() == 1
    except RuntimeError:
        return False


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """The norm of the difference, relative to the expected norm; NaN if a number is NaN."""
    difference = (actual.detach().cpu().double() - expected.double()).norm()
    error = float(difference / expected.double().norm().clamp(min=1e-30))
    return error if actual.shape == expected.shape else math.inf


def _file(kernel: Kernel, device: torch.device) -> Path:
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else ()
    what = kernel.name, machine.describe(device), machine.driver(), capability, _versions()
    digest = hashlib.sha256(repr(what).encode() + machine.sources()).hexdigest()
    return machine.cache_folder() / f"proof-{digest[:16]}.json"


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {"torch": torch.__version__}
    for package in ("numba", "triton"):
        found[package] = None
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _read(kernel: Kernel, device: torch.device) -> Verdict | None:
    try:
        content = json.loads(_file(kernel, device).read_text(encoding="utf-8"))
        verdict = Verdict(dict(content["errors"]), content["obstacle"])
    except (OSError, ValueError, TypeError, KeyError):  # none was kept, or it is damaged
        return None
    return verdict if isinstance(verdict.obstacle, str | None) else None


def _keep(kernel: Kernel, device: torch.device, verdict: Verdict) -> None:
    path = _file(kernel, device)
    content = {"kernel": kernel.name, "device": machine.describe(device), **verdict._asdict()}
    # If nothing can be kept, the next process proves it again.
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps(content), encoding="utf-8")
        part.replace(path)
