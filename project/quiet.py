"""Which of Lightning's messages are silenced, each with its reason; those for the user stay."""

from __future__ import annotations

import logging
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
    # Inside Lightning, with the newest torch.
    ".*isinstance.treespec, LeafSpec.*",
)


def quieten() -> None:
    """Silences what Lightning says about itself, in this process."""
    for package in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(package).setLevel(logging.WARNING)
    for message in NOISE:
        warnings.filterwarnings("ignore", message)
