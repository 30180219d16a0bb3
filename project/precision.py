"""Full float32 precision of convolutions."""

from __future__ import annotations

import torch


def in_float32() -> None:
    """Turns off TF32 in cuDNN, so that float32 convolutions have float32 precision.

    By default torch lets cuDNN round their inputs to ten bits (TF32): logits are off by 6e-4.
    """
    # Not by the setting for convolutions alone, after which torch.export fails to read this one.
    torch.backends.cudnn.allow_tf32 = False
