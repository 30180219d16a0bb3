"""The one place that knows which versions of a kernel there are and picks between them."""

from __future__ import annotations

from typing import Literal, Protocol

from torch import Tensor

from models.kernels import composite, reference

Backend = Literal["auto", "composite", "reference"]


class PartialConv2d(Protocol):
    """The signature that all versions share; `reference` documents it."""

    def __call__(
        self, x: Tensor, weight: Tensor, bias: Tensor, connections: Tensor, padding: int = 0
    ) -> Tensor:
        """As `reference.partial_conv2d`."""


PARTIAL_CONV2D: dict[str, PartialConv2d] = {
    "composite": composite.partial_conv2d,
    "reference": reference.partial_conv2d,
}


def resolve(backend: str) -> str:
    """The version that `backend` stands for.

    Raises:
        ValueError: there is no such version.
    """
    if backend == "auto":
        return "composite"
    if backend not in PARTIAL_CONV2D:
        known = ", ".join(["auto", *PARTIAL_CONV2D])
        raise ValueError(f"backend must be one of {known}, got {backend!r}")
    return backend
