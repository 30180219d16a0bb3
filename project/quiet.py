"""Silences messages of Lightning, each with its reason; those for the user stay."""

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
    # A resumed run continues in its own folder.
    "Checkpoint directory .* exists and is not empty",
    # A run that resumes under another name has a folder of its own.
    "The dirpath has changed from",
    # The user asked for the CPU.
    "GPU available but not used",
    # It counts blocks, while training is logged by iterations.
    "The number of training batches .* is smaller than the logging interval.*",
    # training_step ends after the optimizer's steps, and checkpoints are saved after it.
    "Using ModelCheckpoint with manual optimization and every_n_train_steps.*",
    # The user asked for no logger.
    ".*but have no logger configured",
    # Caused by Lightning's own code with the newest torch.
    ".*isinstance.treespec, LeafSpec.*",
)

CHATTER = (
    # Repeated by a run's first line and its table.
    "GPU available",
    "TPU available",
    "LOCAL_RANK",
    "Seed set to",
    "Restor",
    "`Trainer.fit` stopped",
    "Using .* Automatic Mixed Precision",
    # It recommends less precision, but float32 is intended.
    "You are using a CUDA device",
    # With several ranks, each introduces itself.
    "Initializing distributed",
    r".*\s+distributed_backend",
    # Advertises other products.
    "💡 Tip",
)
"""Messages of Lightning about itself; requested output, such as a profile, is still shown."""


def _is_wanted(record: logging.LogRecord) -> bool:
    # With several ranks, each message begins with the number of its rank.
    return not re.match(rf"(\[rank: \d+\] )?({'|'.join(CHATTER)})", record.getMessage())


def quieten() -> None:
    """Silences Lightning's messages about itself, in this process."""
    # Filters the loggers, not handlers, which notebooks, services and tests may also install.
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] == "lightning":
            logging.getLogger(name).addFilter(_is_wanted)
    for message in NOISE:
        warnings.filterwarnings("ignore", message)
