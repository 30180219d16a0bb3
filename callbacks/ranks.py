"""No rank waits for ever for one that is not there any more."""

from __future__ import annotations

import subprocess
import time
from datetime import timedelta

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

LIMIT = timedelta(seconds=100)
"""How long a rank waits for the others; torch's own limit is half an hour on GPUs."""

GRACE = 5.0
"""Seconds in which ranks say by themselves why they end."""


def limit_waiting(trainer: Trainer) -> None:
    """Lets a job end soon that has lost a rank: under NCCL the others hear nothing of it."""
    if isinstance(trainer.strategy, DDPStrategy):
        trainer.strategy._timeout = LIMIT


class EndRanks(Callback):
    """Ends the ranks that this process has started, where it breaks off by an error of its own."""

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Waits for them a little; what stops all ranks at once leaves them to themselves."""
        launcher = trainer.strategy.launcher
        if isinstance(launcher, _SubprocessScriptLauncher) and isinstance(exception, Exception):
            end(launcher.procs)


def end(processes: list[subprocess.Popen[bytes]]) -> None:
    """Kills those that have not ended within `GRACE`."""
    deadline = time.monotonic() + GRACE
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
