"""What a Trainer's plugins are asked for is done, or refused before the start."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import assert_same_weights, refusal
from lightning.fabric.plugins import TorchCheckpointIO
from torch import nn

from callbacks.checkpoint import SyncedCheckpointIO
from models.lenet import LeNet5
from project import evaluate, fit
from project.recorded_run import RecordedRun

SHORT = ["--data.batch_size=20", "--figures=none", "--trainer.max_epochs=2"]
PLUGIN = "--trainer.plugins=lightning.pytorch.plugins"
NORMALIZED = "--model=test_plugins.Normalized"
SYNCED = "--trainer.sync_batchnorm=true"


class Normalized(LeNet5):
    """One with batch normalization, as people write it."""

    def __init__(self):
        super().__init__()
        self.net.f6 = nn.Sequential(self.net.f6, nn.BatchNorm1d(84))
        self.save_hyperparameters()


class Own(TorchCheckpointIO):
    """Keeps the names of what it writes."""

    names = []  # noqa: RUF012

    def save_checkpoint(self, checkpoint, path, storage_options=None):
        Own.names.append(Path(path).name)
        super().save_checkpoint(checkpoint, path, storage_options)


RANKS = ["--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp"]


@pytest.mark.parametrize("asked", [SYNCED, f"{PLUGIN}.TorchSyncBatchNorm"])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "error: sync_batchnorm has no use: the network has no batch normalization."),
        ([NORMALIZED, *RANKS], "error: sync_batchnorm needs GPUs: torch has it for them alone."),
    ],
)
def test_batch_normalization_is_synchronized_or_that_is_refused(
    asked, options, words, tiny, capsys
):
    assert refusal(capsys, fit.main, *SHORT, *options, asked) == words


def test_one_device_has_all_that_could_be_synchronized(tiny):
    weights = []
    for asked in ([], [SYNCED]):
        cli = RecordedRun([*SHORT, NORMALIZED, *asked], "")
        cli.trainer.fit(cli.model, datamodule=cli.datamodule)
        weights.append(cli.model.state_dict())
    assert_same_weights(*weights)


def writer(*options):
    """What writes the checkpoints of a run."""
    return type(RecordedRun([*SHORT, *options], "").trainer.strategy.checkpoint_io)


def test_who_writes_checkpoints_is_ours_unless_another_is_asked_for(tiny):
    assert writer() is SyncedCheckpointIO
    assert writer(f"{PLUGIN}.environments.LightningEnvironment") is SyncedCheckpointIO
    assert writer("--trainer.plugins=test_plugins.Own") is Own
    strategy = "--trainer.strategy=DDPStrategy", "--trainer.strategy.checkpoint_io=test_plugins.Own"
    assert writer(*RANKS, *strategy) is Own


@pytest.mark.parametrize(
    "plugin", ["test_plugins.Own", "lightning.pytorch.plugins.AsyncCheckpointIO"]
)
def test_checkpoints_of_a_plugin_are_continued_from(plugin, tiny):
    Own.names.clear()
    weights = []
    for name, epochs in (("whole", (4,)), ("cut", (2, 4))):
        for n in epochs:
            start = ["--ckpt_path=last"] * (n != epochs[0])
            options = [*SHORT, f"--trainer.max_epochs={n}", f"--name={name}", *start]
            fit.main([*options, f"--trainer.plugins={plugin}"])
        newest = tiny / f"runs/{name}/version_0/checkpoints/epoch=3-step=28.ckpt"
        weights.append(torch.load(newest, weights_only=True)["state_dict"])
        assert len(list(newest.parent.iterdir())) == 2, "the last two are kept"
    assert_same_weights(*weights)
    assert bool(Own.names) == (plugin == "test_plugins.Own")
    evaluate.main(["--ckpt_path=last"])


def test_a_precision_of_ones_own_is_that_of_the_training(tiny, capsys):
    plugin = [f"{PLUGIN}.MixedPrecision", "--trainer.plugins.precision=bf16-mixed"]
    fit.main([*SHORT, *plugin, "--trainer.plugins.device=cpu", "--trainer.accelerator=cpu"])
    assert "the precision is bf16-mixed" in capsys.readouterr().out


def test_plugin_that_is_none_is_refused(tiny, capsys):
    assert "plugins" in refusal(capsys, fit.main, *SHORT, "--trainer.plugins=nonsense")
