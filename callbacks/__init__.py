"""Callbacks that observe a run and know neither model nor data set.

The names are imported on first access, so that `callbacks.files` can be used without torch.
"""

from __future__ import annotations

import importlib

_MODULES = {
    "BestCheckpoint": "checkpoint",
    "BlockCheckpoint": "checkpoint",
    "FiniteLoss": "finite",
    "Interrupt": "interrupt",
    "Interrupted": "interrupt",
    "LossLog": "loss_log",
    "NonFiniteLossError": "finite",
    "ProgressBar": "progress",
    "ProgressLines": "progress",
    "Results": "results",
    "RunFolder": "run_folder",
    "SyncedCheckpointIO": "checkpoint",
    "TensorBoard": "tensorboard",
    "Timing": "timing",
}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"callbacks.{_MODULES[name]}"), name)
