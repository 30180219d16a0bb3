"""What ranks tell each other after a block, in one message: in each of them all wait for all."""

from __future__ import annotations

import signal

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from models.learners import Run


def told(losses: Tensor, received: int, run: Run, trainer: Trainer) -> tuple[Tensor, Tensor]:
    """Means of losses over all ranks, and the signals that processes have received.

    Args:
        losses: (K,) of this rank.
        received: number of the signal that this process has received; 0 for none.
        run: the training.
        trainer: of it; adds up where ranks are joined in another way than `run` knows.

    Returns:
        (K,), and (NSIG,): above 0 for each number that some rank has named.
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
