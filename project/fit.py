"""`python -m project.fit` trains an experiment, tests it and writes down how it went."""

# PYTHON_ARGCOMPLETE_OK

from __future__ import annotations

import sys

import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    GradientAccumulationScheduler,
    WeightAveraging,
)
from lightning.pytorch.plugins import TorchSyncBatchNorm
from torch import nn

from callbacks.finite import NonFiniteLossError
from callbacks.interrupt import Interrupted
from callbacks.run_folder import removed_if_empty
from project.errors import UserError, fail, user_errors
from project.recorded_run import RecordedRun
from project.table import print_results

# Metrics that `Classifier` logs in an evaluation, after the name of its stage.
METRICS = ("accuracy", "loss", "correct", "total", "predicted_classes")

# The packages whose callbacks log no metric.
OWN = ("callbacks", "project", "lightning")

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)

DESCRIPTION = "Trains an experiment, tests it and prints the result."


def main(args: list[str] | None = None) -> None:
    """Runs the program.

    Args:
        args: command-line arguments; None takes those of the process.
    """
    cli = RecordedRun(args, DESCRIPTION)
    trainer = cli.trainer
    with user_errors():
        check(cli)
    with user_errors(), removed_if_empty(cli.claim_folder()):
        try:
            trainer.fit(
                cli.model,
                datamodule=cli.datamodule,
                ckpt_path=cli.ckpt_path,
                weights_only=True,
            )
        except Interrupted as interrupted:
            if trainer.is_global_zero:
                print(f"Stopped after iteration {interrupted.iteration}.", file=sys.stderr)
            if trainer.is_global_zero and cli.checkpoints and cli.checkpoints.last_path:
                print(
                    f"Continue with: python -m project.fit --ckpt_path {cli.checkpoints.last_path}",
                    file=sys.stderr,
                )
            raise
        except NonFiniteLossError as error:
            fail(error)
        trainer.test(cli.model, datamodule=cli.datamodule, verbose=False)
    if cli.results.record is None:  # without test images, on_test_end is not called
        cli.results.finish(trainer, cli.model)
    if trainer.is_global_zero and cli.results.record:
        print_results(cli.results.record, cli.results.folder)


def check(cli: RecordedRun) -> None:
    """Refuses options that would fail later or not have the effect that they seem to have.

    Raises:
        UserError: a checkpoint has no state of a training, ranks have no images, the interval
            between validations is 0, there is nothing to synchronize, or a callback cannot work
            or waits for a metric that is never logged.
    """
    checkpoint, ranks = cli.request.checkpoint, cli.trainer.world_size
    if checkpoint and not checkpoint.continues:
        raise UserError(
            f"{checkpoint.path} holds weights and no state of a training to go on from; "
            "project.evaluate and project.predict can use it."
        )
    if (size := cli.datamodule.batch_size) < ranks:
        raise UserError(
            f"{ranks} ranks cannot share mini-batches of {size}. Train on one device, many seeds "
            "at once with python -m project.reproduce, or raise --data.batch_size."
        )
    if cli.trainer.val_check_interval == 0:
        raise UserError(
            "--trainer.val_check_interval must be above 0; --trainer.limit_val_batches 0 leaves "
            "validation out."
        )
    _check_batch_norm(cli)
    _check_callbacks(cli)
    _check_monitors(cli)


def _check_batch_norm(cli: RecordedRun) -> None:
    """Refuses --trainer.sync_batchnorm if it would do nothing or fail later."""
    if not isinstance(cli.trainer._accelerator_connector._layer_sync, TorchSyncBatchNorm):
        return
    if not any(isinstance(module, BATCH_NORMS) for module in cli.model.modules()):
        raise UserError("sync_batchnorm has no use: the network has no batch normalization.")
    if cli.trainer.world_size > 1 and cli.trainer.strategy.root_device.type == "cpu":
        raise UserError("sync_batchnorm needs GPUs: torch has it for them alone.")


def _check_callbacks(cli: RecordedRun) -> None:
    callbacks: list[Callback] = cli.trainer.callbacks  # type: ignore[attr-defined]
    for callback in callbacks:
        if isinstance(callback, GradientAccumulationScheduler):
            raise UserError("GradientAccumulationScheduler has no use: raise --data.batch_size.")
        backbone = getattr(cli.model, "backbone", None)
        if isinstance(callback, BackboneFinetuning) and not isinstance(backbone, nn.Module):
            raise UserError(
                f"BackboneFinetuning freezes the module `backbone` of a model; "
                f"{type(cli.model).__name__} has none."
            )
        if isinstance(callback, WeightAveraging) and _averages_integers(callback, cli):
            raise UserError(
                f"{type(callback).__name__} averages whole numbers too, such as C3's connections, "
                "and on a GPU torch cannot: set its use_buffers to false or its device to cpu, or "
                "choose EMAWeightAveraging."
            )
        if getattr(callback, "_train_time_interval", None):
            raise UserError(
                f"train_time_interval of {type(callback).__name__} has no use where a "
                "training_step takes many steps; there is --checkpoint_minutes."
            )


def _averages_integers(callback: WeightAveraging, cli: RecordedRun) -> bool:
    is_mean = not callback._kwargs.keys() & {"avg_fn", "multi_avg_fn"}
    integers = any(not buffer.is_floating_point() for buffer in cli.model.buffers())
    # The device of the mean, which is the model's unless the callback sets another.
    device = torch.device(callback._device or cli.trainer.strategy.root_device)
    return is_mean and callback._use_buffers and integers and device.type == "cuda"


def _check_monitors(cli: RecordedRun) -> None:
    validates = cli.datamodule.val_size > 0 and cli.trainer.limit_val_batches > 0
    known = {"epoch", "step", "train/loss"} | {f"val/{name}" for name in METRICS if validates}
    callbacks: list[Callback] = cli.trainer.callbacks  # type: ignore[attr-defined]
    if any(type(callback).__module__.split(".")[0] not in OWN for callback in callbacks):
        return  # a user's callback may log more
    for callback in callbacks:
        monitor = getattr(callback, "monitor", None)
        if monitor not in {None, *known} and getattr(callback, "strict", True):
            more = "" if validates else "; --data.val_size N adds val/loss and val/accuracy"
            raise UserError(
                f"{type(callback).__name__} waits for {monitor!r}, which is not measured; there "
                f"are {', '.join(sorted(known))}{more}."
            )


if __name__ == "__main__":
    main()
