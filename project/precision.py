"""float32 means float32."""

from __future__ import annotations

import torch


def in_float32() -> None:
    """Lets convolutions compute in float32 where they are asked to.

    By itself torch's cuDNN rounds their inputs to ten bits (tf32): logits are off by 6e-4.
    """
    # Of convolutions alone it cannot be said: torch.export then refuses to read it.
    torch.backends.cudnn.allow_tf32 = False
