"""Ends the ranks of a job that has lost one of them."""

from __future__ import annotations

import subprocess
import time
from datetime import timedelta

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

LIMIT = timedelta(seconds=100)
"""Time that a rank waits for the others; torch's own limit is half an hour on GPUs."""

GRACE = 5.0
"""Seconds that ranks have to end by themselves and report why."""


def limit_waiting(trainer: Trainer) -> None:
    """Sets a short timeout, since under NCCL ranks do not notice that another one is lost."""
    if isinstance(trainer.strategy, DDPStrategy):
        trainer.strategy._timeout = LIMIT


class EndRanks(Callback):
    """Ends the ranks that this process has started, if it fails with an error of its own."""

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Waits for them briefly, then kills them; leaves them alone if all ranks are stopped."""
        launcher = trainer.strategy.launcher
        if isinstance(launcher, _SubprocessScriptLauncher) and isinstance(exception, Exception):
            end(launcher.procs)


def end(processes: list[subprocess.Popen[bytes]]) -> None:
    """Kills the processes that have not ended within `GRACE`."""
    deadline = time.monotonic() + GRACE
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
