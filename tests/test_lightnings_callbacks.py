"""Every public callback of Lightning acts in blocks as it does with mini-batches, or is refused."""

from __future__ import annotations

import pytest
import torch
from helpers import fit
from lightning.pytorch import callbacks
from lightning.pytorch.callbacks import Checkpoint, ModelSummary, ProgressBar
from lightning.pytorch.loggers import CSVLogger

from data import MNISTDataModule
from models.lenet import LeNet5

pytestmark = pytest.mark.filterwarnings("ignore")

# What they need beside their defaults.
OPTIONS = {
    "BatchSizeFinder": {"max_trials": 2, "steps_per_trial": 1},
    "EarlyStopping": {"monitor": "val/loss", "min_delta": 9, "patience": 1},
    "EMAWeightAveraging": {},
    "LambdaCallback": {"on_train_batch_end": lambda *_: None},
    "LearningRateFinder": {"num_training_steps": 4},
    "LearningRateMonitor": {},
    "ModelCheckpoint": {},
    "ModelPruning": {"pruning_fn": "l1_unstructured", "amount": 0.5},
    "ModelSummary": {},
    "OnExceptionCheckpoint": {},
    "RichModelSummary": {},
    "RichProgressBar": {},
    "SpikeDetection": {},
    "StochasticWeightAveraging": {"swa_lrs": 0.05},
    "ThroughputMonitor": {"batch_size_fn": lambda block: int(block.totals.sum())},
    "Timer": {"duration": {"minutes": 9}},
    "TQDMProgressBar": {},
    "WeightAveraging": {},
}
# Base classes; what needs a package or a part that a model of ours has not; refused by fit.
OTHERS = {
    *("BaseFinetuning", "BasePredictionWriter", "Callback", "Checkpoint", "ProgressBar"),
    *("BackboneFinetuning", "DeviceStatsMonitor", "GradientAccumulationScheduler"),
}


def test_each_is_known():
    """A newer Lightning may have more."""
    assert set(callbacks.__all__) <= OPTIONS.keys() | OTHERS


def trained(name, options, block_size, root, folder):
    """The weights, what was logged and how many iterations there were."""
    callback = getattr(callbacks, name)(**options)
    logger, logged = CSVLogger(folder), []
    logger.log_metrics = lambda metrics, step: logged.append((step, sorted(metrics)))
    if isinstance(callback, Checkpoint):
        callback.dirpath = folder / "saved"
    model, run = fit(
        LeNet5,
        MNISTDataModule(str(root), batch_size=10, val_size=30, block_size=block_size),
        folder,
        max_epochs=3,
        callbacks=[callback],
        logger=logger,
        log_every_n_steps=2,
        enable_checkpointing=isinstance(callback, Checkpoint),
        enable_progress_bar=isinstance(callback, ProgressBar),
        enable_model_summary=isinstance(callback, ModelSummary),
    )
    saved = sorted(path.name for path in folder.glob("saved/*"))
    return model.state_dict(), (run.global_step, run.current_epoch, logged, saved)


@pytest.mark.parametrize("name", [name for name in OPTIONS if hasattr(callbacks, name)])
def test_it_acts_as_with_mini_batches(name, tiny_root, tmp_path):
    if name == "OnExceptionCheckpoint":
        OPTIONS[name]["dirpath"] = tmp_path
    found = [
        trained(name, OPTIONS[name], size, tiny_root, tmp_path / str(size)) for size in ("auto", 1)
    ]
    assert found[0][1] == found[1][1]
    for key, weight in found[0][0].items():
        torch.testing.assert_close(weight, found[1][0][key], rtol=1e-4, atol=1e-6)
