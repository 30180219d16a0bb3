"""What watches a run. Knows no model and no data set."""

from callbacks.checkpoint import BlockCheckpoint, SyncedCheckpointIO
from callbacks.finite import FiniteLoss, NonFiniteLossError
from callbacks.interrupt import Interrupt, Interrupted
from callbacks.loss_log import LossLog
from callbacks.progress import ProgressBar
from callbacks.results import Results, describe_device
from callbacks.run_folder import run_folder
from callbacks.tensorboard import TensorBoard
from callbacks.timing import Timing

__all__ = [
    "BlockCheckpoint",
    "FiniteLoss",
    "Interrupt",
    "Interrupted",
    "LossLog",
    "NonFiniteLossError",
    "ProgressBar",
    "Results",
    "SyncedCheckpointIO",
    "TensorBoard",
    "Timing",
    "describe_device",
    "run_folder",
]
