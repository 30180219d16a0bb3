"""Exchanges losses and signals between ranks after a block, in one call, since each one blocks."""

from __future__ import annotations

import signal

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from models.learners import Run


def told(losses: Tensor, received: int, run: Run, trainer: Trainer) -> tuple[Tensor, Tensor]:
    """Averages losses over all ranks, and collects the signals that processes have received.

    Args:
        losses: (K,) losses of this rank.
        received: number of the signal that this process has received; 0 for none.
        run: the training.
        trainer: reduces over the ranks if `run` has no `all_reduce`.

    Returns:
        Mean losses (K,), and (NSIG,): above 0 for each signal that some rank has received.
    """
    signals = losses.new_zeros(signal.NSIG)
    signals[received].fill_(1)
    if run.ranks == 1:
        return losses, signals
    row = torch.cat([losses, signals])
    if run.all_reduce is None:
        row = trainer.strategy.reduce(row, reduce_op="mean")
    else:  # without the barrier that Lightning sets before a sum
        run.all_reduce(row)
        row /= run.ranks
    losses, signals = row.split_with_sizes([len(losses), signal.NSIG])
    return losses, signals
