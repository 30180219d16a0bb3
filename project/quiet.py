"""Which of Lightning's messages are silenced, each with its reason; those for the user stay."""

from __future__ import annotations

import logging
import re
import warnings

NOISE = (
    # The data is in memory: there is nothing for workers to do.
    ".*does not have many workers.*",
    # Without a validation set there is no validation.
    "Total length of `list` across ranks is zero",
    # Metrics come out of torchmetrics, already gathered over the ranks.
    ".*sync_dist=True.*",
    # A continued run goes on in its own folder.
    "Checkpoint directory .* exists and is not empty",
    # One that continues under another name has a folder of its own.
    "The dirpath has changed from",
    # Who asks for the CPU knows.
    "GPU available but not used",
    # Of blocks; what is logged of training is logged by iterations.
    "The number of training batches .* is smaller than the logging interval.*",
    # A step is behind the optimizer's, and so is its checkpoint.
    "Using ModelCheckpoint with manual optimization and every_n_train_steps.*",
    # Who asks for no logger knows.
    ".*but have no logger configured",
    # Inside Lightning, with the newest torch.
    ".*isinstance.treespec, LeafSpec.*",
)

CHATTER = (
    # What a run's first line and its table say.
    "GPU available",
    "TPU available",
    "LOCAL_RANK",
    "Seed set to",
    "Restor",
    "`Trainer.fit` stopped",
    "Using .* Automatic Mixed Precision",
    # float32 is float32.
    "You are using a CUDA device",
    # On several ranks: who they are, by each of them.
    "Initializing distributed",
    r".*\s+distributed_backend",
    # Other products.
    "💡 Tip",
)
"""What Lightning tells of itself; what it was asked for, such as a profile, it still tells."""


def _is_wanted(record: logging.LogRecord) -> bool:
    # Of several ranks each puts its number in front.
    return not re.match(rf"(\[rank: \d+\] )?({'|'.join(CHATTER)})", record.getMessage())


def quieten() -> None:
    """Silences what Lightning says about itself, in this process."""
    # Where they are said: who shows them is decided by notebooks, services and tests, too.
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] == "lightning":
            logging.getLogger(name).addFilter(_is_wanted)
    for message in NOISE:
        warnings.filterwarnings("ignore", message)
