"""The command line and records of a training, in a folder of its own."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback

from callbacks.checkpoint import BestCheckpoint, BlockCheckpoint, SyncedCheckpointIO
from callbacks.files import write_text
from callbacks.interrupt import Interrupt
from callbacks.results import describe_device
from callbacks.run_folder import RunFolder, run_folder
from callbacks.tensorboard import TensorBoard
from models import learners
from models.classifier import Classifier
from project.dashboard.callback import Dashboard
from project.experiments import RUNS
from project.program import Program
from project.table import describe_learner

EXAMPLES = """examples:
  python -m project.fit --config lenet5-modern --trainer.max_epochs 3
  python -m project.fit --config logistic --data.digits "[3, 8]" --seed_everything 1
  python -m project.fit --data.val_size 5000 --trainer.callbacks EarlyStopping \\
      --trainer.callbacks.monitor val/loss
  python -m project.fit --ckpt_path last --trainer.max_epochs 20"""


# Logged once per run or evaluation: results.json has them, and their curves would be dots.
DOTS = (
    *("/correct", "/total", "/predicted_classes"),
    *("/setup_seconds", "/validate_seconds", "/test_seconds"),
)


class SaveConfig(SaveConfigCallback):
    """Saves the configuration in every checkpoint too, so that checkpoints are self-contained."""

    @cached_property
    def text(self) -> str:
        """The content of config.yaml."""
        text: str = self.parser.dump(self.config, skip_none=False)
        return text

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Writes config.yaml into the run's folder only, as part of the set-up."""
        folder = run_folder(trainer)
        if trainer.is_global_zero and folder is not None and not self.already_saved:
            write_text(folder / "config.yaml", self.text)
            self.already_saved = True

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Adds the key "config", the text of config.yaml."""
        checkpoint["config"] = self.text


class Announcement(Callback):
    """Prints the first line of a training: what runs, how, and in which folder.

    It also prints the last line if the training is stopped early.

    Args:
        name: name of the run.
        start: checkpoint from which it resumes.
    """

    def __init__(self, name: str, start: Path | None) -> None:
        self.name = name
        self.start = start

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints the line before the learner is built, which may take long."""
        folder = run_folder(trainer)
        if not trainer.is_global_zero:
            return
        assert isinstance(pl_module, Classifier)
        kind, why = learners.choose(pl_module, learners.run_of(pl_module))
        parameters = sum(parameter.numel() for parameter in pl_module.parameters())
        device = describe_device(trainer.strategy.root_device)
        print(
            f"{self.name}: {parameters:,} parameters on {device}, "
            f"learner {describe_learner(kind.name, why)}, "
            f"{f'into {folder}' if folder else 'nothing is written'}"
            f"{f', from {self.start}' if self.start else ''}",
            flush=True,
        )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints that the training was stopped early, and why."""
        for callback in trainer.early_stopping_callbacks:
            is_over = callback.stopped_epoch or callback.wait_count >= callback.patience
            if trainer.is_global_zero and trainer.should_stop and is_over:
                best = f"the best {callback.monitor} is {callback.best_score:.4f}"
                print(
                    f"Stopped early, after {trainer.global_step:,} iterations: {best}.", flush=True
                )


class RecordedRun(Program):
    """The command line of a training that is recorded in runs/NAME/version_N.

    Args:
        args: command-line arguments; None takes those of the process.
        description: what the program does, for --help.

    Attributes:
        checkpoints: callback that saves checkpoints; None if none are saved.
    """

    def __init__(self, args: list[str] | None, description: str) -> None:
        self.checkpoints: BlockCheckpoint | None = None
        super().__init__("fit", args, description, EXAMPLES, SaveConfig)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Builds a Trainer that records the training."""
        config = self.config.trainer
        records: list[Callback] = [Dashboard(self.config.figures, self.results)]
        # The announcement names the learner, which the user's callbacks before it may change.
        ends: list[Callback] = [Interrupt(), Announcement(self.request.name, self.ckpt_path)]
        if not config.fast_dev_run:
            folder = self._folder()
            records.append(folder)
            if config.logger in (None, True):
                kwargs["logger"] = TensorBoard(folder, left_out=DOTS, default_hp_metric=False)
        if config.enable_checkpointing is not False:
            every, minutes = self.config.checkpoint_every, self.config.checkpoint_minutes
            self.checkpoints = BlockCheckpoint(every, minutes)
            ends.append(self.checkpoints)
            if self.datamodule.val_size and config.limit_val_batches != 0:
                ends.append(BestCheckpoint())
        trainer = self.trainer_with(records, ends, **kwargs)
        if trainer.strategy._checkpoint_io is None:  # neither a plugin's nor the strategy's own
            trainer.strategy.checkpoint_io = SyncedCheckpointIO()
        return trainer

    def claim_folder(self) -> Path | None:
        """Creates the run's folder on the rank that writes; returns None if nothing is written."""
        folder = run_folder(self.trainer)
        return folder if self.trainer.is_global_zero else None

    def _folder(self) -> RunFolder:
        # A run that resumes one of the same name uses its folder.
        parent, name = RUNS / self.request.name, None
        if self.ckpt_path and self.ckpt_path.resolve().parent.parent.parent == parent.resolve():
            name = self.ckpt_path.resolve().parent.parent.name
        return RunFolder(parent, name)
