"""The command line that the programs share: one experiment, one Trainer, one run folder."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import warnings
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch.distributed as dist
from jsonargparse.typing import PositiveFloat, PositiveInt
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint as SavesCheckpoints
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback

from callbacks.checkpoint import BlockCheckpoint, SyncedCheckpointIO
from callbacks.files import write_text
from callbacks.finite import FiniteLoss
from callbacks.interrupt import Interrupt
from callbacks.loss_log import LossLog
from callbacks.progress import ProgressBar
from callbacks.results import Results, describe_device
from callbacks.run_folder import RunFolder, run_folder
from callbacks.tensorboard import TensorBoard
from callbacks.timing import Timing
from models import learners
from models.classifier import Classifier
from project import processes
from project.dashboard.callback import Amount, Dashboard
from project.errors import OneLineParser, UserError, fail, user_errors
from project.experiments import (
    CONFIGS,
    DEFAULT_CONFIG,
    EXPERIMENTS,
    RUNS,
    Checkpoint,
    Config,
    check_name,
    find_config,
    last_checkpoint,
    read_checkpoint,
    unfinished_checkpoint,
)
from project.parser import Parser
from project.table import describe_learner

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
    # Inside Lightning, with the newest torch.
    ".*isinstance.treespec, LeafSpec.*",
)


class SaveConfig(SaveConfigCallback):
    """Puts the configuration into every checkpoint too, so that a checkpoint needs no company."""

    @cached_property
    def text(self) -> str:
        """Of config.yaml."""
        text: str = self.parser.dump(self.config, skip_none=False)
        return text

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Writes config.yaml into the run's folder and nowhere else, while it counts as set-up."""
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
    """The first line of a training: what is about to run, how, and where it will be found.

    Args:
        name: of the run.
        start: the checkpoint that it goes on from.
    """

    def __init__(self, name: str, start: Path | None) -> None:
        self.name = name
        self.start = start

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Says it, before the learner is made, which may take long."""
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


class Request(NamedTuple):
    """What a command line asks for, as far as it decides which options there are."""

    configs: list[Config]
    """Later ones win."""
    name: str
    """Of the folder below `RUNS`."""
    checkpoint: Checkpoint | None
    """To start from."""
    options: list[str]
    """The rest of the command line."""


def read_request(args: list[str]) -> Request:
    """Takes the options that decide about all others from a command line.

    A checkpoint brings the configuration of its run. Beside "last", --config only says whose; with
    neither that nor --name it is the last run of any name.

    Raises:
        UserError: a configuration or checkpoint that is not there or cannot be used.
    """
    parser = OneLineParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-c", "--config", action="append", default=[])
    parser.add_argument("--name")
    parser.add_argument("--ckpt_path")
    chosen, options = parser.parse_known_args(args)
    configs = [find_config(name) for name in chosen.config]
    if chosen.ckpt_path is None:
        configs = configs or [find_config(DEFAULT_CONFIG)]
    name = chosen.name or (configs[-1].name if configs else None)
    checkpoint = _starting_point(chosen.ckpt_path, None if name is None else check_name(name))
    if chosen.ckpt_path and checkpoint and checkpoint.config:
        # What "last" found was chosen by --config; a path was not.
        configs = [checkpoint.config, *(configs if chosen.ckpt_path != "last" else ())]
    if not configs:
        raise UserError(f"{chosen.ckpt_path} holds no configuration; say which with --config.")
    return Request(configs, check_name(chosen.name or configs[-1].name), checkpoint, options)


def _starting_point(path: str | None, name: str | None) -> Checkpoint | None:
    if path == "last":
        return last_checkpoint(name)
    if path is not None:
        return read_checkpoint(Path(path))
    # torchrun starts a job again that lost a rank.
    is_restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
    return unfinished_checkpoint(str(name)) if is_restart else None


class ExperimentCLI(LightningCLI):
    """Builds model, data and Trainer of the experiment that a command line asks for.

    The classes are settled before the options are read, so that --help and error messages speak
    of the options of this experiment.

    Args:
        program: its name behind `python -m project.`.
        args: command line without the program; None takes that of the process.
        description: what the program does, for --help.
        records: whether the run gets a folder; else nothing is written.
    """

    def __init__(
        self, program: str, args: list[str] | None, description: str, *, records: bool = True
    ) -> None:
        _quieten()
        atexit.register(_leave_the_others)
        self.records = records
        with user_errors():
            processes.settle()
            self.request = read_request(_typed() if args is None else args)
        self.experiment = self.request.configs[-1].experiment
        model, data = EXPERIMENTS[self.experiment]
        super().__init__(
            model,
            data,
            args=[*(f"--config={c.source}" for c in self.request.configs), *self.request.options],
            run=False,
            parser_class=Parser,
            parser_kwargs={
                "prog": f"python -m project.{program}",
                "usage": "%(prog)s [--config NAME] [--OPTION VALUE]...",
                "description": f"{description} {_configurations()}",
            },
            save_config_callback=SaveConfig if records else None,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            # Counts blocks, of which an epoch may have few.
            trainer_defaults={"log_every_n_steps": 1},
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds what belongs to a run and to neither model, data nor Trainer."""
        assert isinstance(parser, Parser)
        parser.explain("--config", "Name of a configuration, or path of a YAML file.")
        parser.explain("--seed_everything", "Decides all that is random, the data's order too.")
        known = ", ".join(EXPERIMENTS)
        parser.add_argument("--experiment", help=f"Family of model and data: {known}.")
        parser.add_argument("--name", help="Names the folder of the run: runs/NAME/version_N.")
        parser.add_argument(
            "--ckpt_path", help='Checkpoint; "last" is the newest, with --name of that.'
        )
        parser.add_argument(
            "--checkpoint_every",
            type=PositiveInt | None,
            help="Iterations between two checkpoints, at the end of a block; default: an epoch.",
        )
        parser.add_argument(
            "--checkpoint_minutes",
            type=PositiveFloat | None,
            help="Minutes between two checkpoints, at the end of a block.",
        )
        parser.add_argument(
            "--figures", type=Amount, default="cheap", help="How much is drawn for TensorBoard."
        )
        parser.link_arguments("seed_everything", "data.seed")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses `args`, of which the base class would warn."""
        self.config = parser.parse_args(args)
        if self.config.experiment != self.experiment:
            fail(f"the experiment is {self.experiment}; choose another with --config.")
        self.config.name = self.request.name
        if dist.is_torchelastic_launched():  # torchrun has settled how many ranks there are
            self.config.trainer.devices = int(os.environ["LOCAL_WORLD_SIZE"])
            self.config.trainer.num_nodes = int(os.environ["GROUP_WORLD_SIZE"])
        seed = self.config.seed_everything
        if not isinstance(seed, bool) and not 0 <= seed < 2**32:
            fail(f"--seed_everything must be between 0 and {2**32 - 1}, got {seed}.")

    def instantiate_classes(self) -> None:
        """Builds everything; a value that a class refuses is the user's to mend."""
        with user_errors(ValueError):
            super().instantiate_classes()
        if checkpoint := self.request.checkpoint:
            try:
                self.model.load_state_dict(checkpoint.state_dict)
            except RuntimeError as error:
                fail(f"{checkpoint.path} holds the weights of another model: {error}")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """A Trainer that records what this project records."""
        config = self.config.trainer
        timing = Timing()
        self.results = Results(self.request.name, self.config.seed_everything, timing)
        self.checkpoints: BlockCheckpoint | None = None
        # Each is called after those before it: timing counts the loss log, the results read timing.
        callbacks: list[Callback] = [LossLog(), FiniteLoss(), timing, self.results]
        if self.records:
            callbacks += [Dashboard(self.config.figures, self.results), Interrupt()]
            callbacks.append(Announcement(self.request.name, self.ckpt_path))
        if config.enable_progress_bar is None:
            # A bar in a log file is noise.
            kwargs["enable_progress_bar"] = sys.stdout.isatty()
        if kwargs.get("enable_progress_bar", config.enable_progress_bar):
            callbacks.append(ProgressBar())
        if not self.records:
            kwargs |= {"logger": False, "enable_checkpointing": False}
        elif not config.fast_dev_run:
            folder = self._folder()
            callbacks.append(folder)
            if config.logger in (None, True):
                kwargs["logger"] = TensorBoard(folder, default_hp_metric=False)
        if self.records and config.enable_checkpointing is not False:
            every, minutes = self.config.checkpoint_every, self.config.checkpoint_minutes
            self.checkpoints = BlockCheckpoint(every, minutes)
            callbacks.append(self.checkpoints)
            if config.plugins is None:
                kwargs["plugins"] = SyncedCheckpointIO()
        self.trainer_defaults["callbacks"] = callbacks
        trainer = super().instantiate_trainer(enable_model_summary=False, **kwargs)
        processes.check(trainer)

        def place(callback: Callback) -> int:
            # Records of a block come before what a user's callback may raise; what ends a training
            # comes behind them all, as does what says how it learns, and checkpoints behind that.
            if isinstance(callback, Announcement | Interrupt | SavesCheckpoints):
                return 2 + isinstance(callback, SavesCheckpoints)
            return 0 if callback in callbacks else 1

        trainer.callbacks.sort(key=place)  # type: ignore[attr-defined]
        return trainer

    def claim_folder(self) -> Path | None:
        """Makes the run's folder, for the rank that writes; None where nothing is written."""
        folder = run_folder(self.trainer)
        return folder if self.trainer.is_global_zero else None

    def announce_checkpoint(self) -> None:
        """Says which checkpoint is used, where the answers do not go."""
        print(f"Checkpoint: {self.ckpt_path}", file=sys.stderr)

    @property
    def ckpt_path(self) -> Path | None:
        """The checkpoint to start from."""
        return self.request.checkpoint.path if self.request.checkpoint else None

    def _folder(self) -> RunFolder:
        # A run that continues one of the same name goes on in its folder.
        parent, name = RUNS / self.request.name, None
        if self.ckpt_path and self.ckpt_path.resolve().parent.parent.parent == parent.resolve():
            name = self.ckpt_path.resolve().parent.parent.name
        return RunFolder(parent, name)


def _typed() -> list[str]:
    """The words behind the program; while a shell completes a line, the finished ones of that."""
    if "_ARGCOMPLETE" in os.environ:
        return os.environ["COMP_LINE"].split()[3:-1]  # python -m program ... unfinished
    return sys.argv[1:]


def _configurations() -> str:
    names = ", ".join(path.stem for path in sorted(CONFIGS.glob("*.yaml")))
    return f"Configurations: {names}; {DEFAULT_CONFIG} by default. Options of the chosen one:"


def _leave_the_others() -> None:
    """Ends the threads behind the ranks' connections while Python is whole, as torch asks for."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _quieten() -> None:
    """Silences what Lightning says about itself; warnings that concern the user stay."""
    for package in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(package).setLevel(logging.WARNING)
    for message in NOISE:
        warnings.filterwarnings("ignore", message)
