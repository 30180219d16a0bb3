"""Writes the outcome of a run to results.json."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from callbacks.files import write_json
from callbacks.run_folder import run_folder
from callbacks.timing import Timing


class Results(Callback):
    """Gathers the outcome of a run after its test, and writes it to results.json.

    The model must log evaluations as `Classifier` does, and hold the counts (classes, classes) of
    the last one in `confusion`.

    Args:
        config: name of the run.
        seed: seed of the run.
        timing: the `Timing` callback of the same run.

    Attributes:
        record: content of the file; None before the end of the test or a call of `finish`.
        folder: folder of the run; None if nothing is written.
    """

    def __init__(self, config: str, seed: int | None, timing: Timing) -> None:
        self.config = config
        self.seed = seed
        self.timing = timing
        self.record: dict[str, Any] | None = None
        self.folder: Path | None = None
        self._validation: dict[str, Any] | None = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps the outcome of the last validation."""
        if not trainer.sanity_checking:
            self._validation = outcome(_metrics(trainer), "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Builds and writes the record."""
        self.finish(trainer, pl_module)

    def finish(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Builds the record and writes it atomically, if the run has a folder."""
        self.record = self._record(trainer, pl_module)
        self.folder = run_folder(trainer)
        if trainer.is_global_zero and self.folder is not None:
            write_json(self.folder / "results.json", self.record)

    def _record(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        return record_of(
            pl_module,
            config=self.config,
            seed=self.seed,
            iterations=trainer.global_step,
            world_size=trainer.world_size,
            device=trainer.strategy.root_device,
            validation=self._validation,
            test=outcome(_metrics(trainer), "test"),
            seconds=self.timing.seconds,
            images_per_second=self.timing.images_per_second,
        )


def record_of(
    model: LightningModule,
    *,
    config: str,
    seed: int | None,
    iterations: int,
    world_size: int,
    device: torch.device,
    validation: dict[str, Any] | None,
    test: dict[str, Any] | None,
    seconds: Mapping[str, float],
    images_per_second: float | None,
) -> dict[str, Any]:
    """Builds the content of results.json.

    Args:
        model: the model after its last evaluation; its `confusion` is that of the test.
        config: name of the run.
        seed: seed of the run.
        iterations: optimizer steps taken.
        world_size: number of ranks.
        device: device of this rank.
        validation: `outcome` of the last validation; None if there was none.
        test: `outcome` of the test; None if there was none.
        seconds: seconds of each stage; empty if the run shared its device with others.
        images_per_second: speed of training; None without one, or if the device was shared.
    """
    confusion = getattr(model, "confusion", None)
    if test is not None and isinstance(confusion, Tensor):
        test = {**test, "confusion": confusion.tolist()}
    return {
        "config": config,
        "seed": seed,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "iterations": iterations,
        "world_size": world_size,
        "device": describe_device(device),
        "backend": getattr(model, "backend", None),
        "learner": getattr(model, "learner", None),
        "why_not_faster": getattr(model, "why_not_faster", ""),
        "validation": validation,
        "test": test,
        "seconds": seconds,
        "images_per_second": images_per_second,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "lightning": lightning.__version__,
        },
        "git": git_revision(),
    }


def _metrics(trainer: Trainer) -> dict[str, float]:
    return {name: value.item() for name, value in trainer.callback_metrics.items()}


def outcome(metrics: Mapping[str, float], stage: str) -> dict[str, Any] | None:
    """Returns the outcome of an evaluation from its logged metrics; None if there was none."""
    if f"{stage}/total" not in metrics:
        return None
    correct, total = (int(metrics[f"{stage}/{name}"]) for name in ("correct", "total"))
    return {
        "accuracy": correct / total,
        "loss": metrics[f"{stage}/loss"],
        "correct": correct,
        "total": total,
        "predicted_classes": int(metrics[f"{stage}/predicted_classes"]),
    }


def describe_device(device: torch.device) -> str:
    """Describes a device, such as "cpu" or "cuda:0 (NVIDIA H200)"."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return str(device)


@cache
def git_revision() -> str | None:
    """Returns the commit of the code, "-dirty" if it was changed; None outside a checkout.

    It is cached, since the code that runs is the code at the time of import.
    """
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    # Git hooks and editors may set variables that name another repository.
    environment = {k: value for k, value in os.environ.items() if not k.startswith("GIT_")}
    try:
        done = subprocess.run(
            command,
            cwd=Path(__file__).parent,
            env=environment,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
