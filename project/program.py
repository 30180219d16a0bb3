"""The common base of the programs: an experiment's classes and options, and a Trainer."""

from __future__ import annotations

import atexit
import contextvars
import os
import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch.distributed as dist
from jsonargparse.typing import PositiveFloat, PositiveInt
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import Checkpoint as SavesCheckpoints
from lightning.pytorch.callbacks import ProgressBar as LightningsBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback

from callbacks.finite import FiniteLoss
from callbacks.loss_log import LossLog
from callbacks.progress import ProgressBar, ProgressLines
from callbacks.ranks import EndRanks, limit_waiting
from callbacks.results import Results
from callbacks.timing import Timing
from data import source
from data.mnist import TEN
from data.scaling import SIZE
from project import own, processes
from project.dashboard.callback import Amount
from project.errors import fail, user_errors
from project.experiments import CONFIGS, DEFAULT_CONFIG, EXPERIMENTS
from project.help import chosen_view
from project.parser import Parser
from project.precision import in_float32
from project.quiet import quieten
from project.request import read_request
from project.threads import limit_threads
from project.unused import check_devices, check_flags, check_options
from project.wording import in_plain_words


class Program(LightningCLI):
    """Builds model, data and Trainer of the experiment that a command line asks for.

    The classes are determined before the options are parsed, so that --help and error messages are
    about the options of this experiment.

    Args:
        program: name of the program after `python -m project.`.
        args: command-line arguments; None takes those of the process.
        description: what the program does, for --help.
        examples: example command lines, for --help.
        save_config: callback that saves the configuration; None for a program that does not train.
    """

    unused: ClassVar[tuple[str, ...]] = ()
    """Options, or sections of options, that have no effect in the program."""

    def __init__(
        self,
        program: str,
        args: list[str] | None,
        description: str,
        examples: str,
        save_config: type[SaveConfigCallback] | None = None,
    ) -> None:
        quieten()
        in_float32()
        atexit.register(processes.leave)
        with user_errors():
            processes.settle()
            self.trains = save_config is not None
            self.request = read_request(args, trains=self.trains)
            check_options(program, self.request.options, self.unused)
        view, options = chosen_view(self.request.options, self.unused)
        self.experiment = self.request.configs[-1].experiment
        with user_errors():
            model, data = EXPERIMENTS.get(self.experiment) or own.find(self.experiment)
        # jsonargparse keeps its parser, with all that it built, in a context variable: a process
        # that trains a hundred times would keep the images of each.
        contextvars.copy_context().run(
            super().__init__,
            model,
            data,
            args=[*(f"--config={c.text}" for c in self.request.configs), *options],
            run=False,
            parser_class=Parser,
            parser_kwargs={
                "prog": f"python -m project.{program}",
                "usage": "%(prog)s [--config NAME] [--OPTION VALUE]...",
                "description": f"{description} {_configurations()}",
                "epilog": examples,
                "view": view,
            },
            save_config_callback=save_config,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            trainer_defaults={"log_every_n_steps": 1},
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the options that belong to a run, and not to model, data or Trainer."""
        assert isinstance(parser, Parser)
        parser.explain("--config", "Name of a configuration, or path of a YAML file.")
        parser.explain("--print_config", "Print the configuration, with comments, and stop.")
        parser.explain("--seed_everything", "Decides all that is random, the data's order too.")
        known = ", ".join(EXPERIMENTS)
        parser.add_argument("--experiment", help=f"Family of model and data: {known}; or mine.Net.")
        parser.add_argument("--name", help="Names the folder of the run: runs/NAME/version_N.")
        parser.add_argument(
            "--ckpt_path",
            help='Checkpoint; "last": the newest, "best": that of the newest best validation; with '
            "--name of that run.",
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
        if parser.knows("data.seed"):
            parser.link_arguments("seed_everything", "data.seed")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses `args`, about which the base class would warn."""
        self.config = parser.parse_args(args)
        if self.config.experiment != self.experiment:
            fail(f"the experiment is {self.experiment}; choose another with --config.")
        self.config.name = self.request.name
        if dist.is_torchelastic_launched():  # torchrun has set the number of ranks
            self.config.trainer.devices = int(os.environ["LOCAL_WORLD_SIZE"])
            self.config.trainer.num_nodes = int(os.environ["GROUP_WORLD_SIZE"])
        with user_errors():
            check_flags(self.config.trainer)
            check_devices(self.config.trainer.devices)
            if self.trains:
                self._read_layout()
        seed = self.config.seed_everything
        if not isinstance(seed, bool) and not 0 <= seed < 2**32:
            fail(f"--seed_everything must be between 0 and {2**32 - 1}, got {seed}.")

    def _read_layout(self) -> None:
        """Reads image size and classes from the files of a data set other than MNIST.

        Values that the user chose are kept.
        """
        # A class whose __init__ has no arguments has no section.
        model, data = self.config.get("model", {}), self.config.get("data", {})
        if not all(name in data for name in ("root", "verify", "size", "digits")):
            return  # a user's own data module
        root = source.resolve_root(data.root)
        if data.verify is False and tuple(data.size) == (SIZE, SIZE):
            data.size = source.image_size(root)
        if "classes" not in model:
            return
        if data.verify is False and tuple(data.digits) == TEN:
            found = source.classes(root)
            if found != TEN:
                data.digits = found
                if model.classes == len(TEN):
                    model.classes = len(found)
        if 1 < model.classes < len(data.digits):
            fail(f"--model.classes={model.classes}, but the data have {len(data.digits)} classes.")

    def instantiate_classes(self) -> None:
        """Builds everything; a value that a class refuses becomes a user's error."""
        with user_errors():
            try:
                super().instantiate_classes()
            except ValueError as error:
                fail(in_plain_words(str(error)))
        if "seed" not in self.config.get("data", {}):
            self.datamodule.seed = self.config.seed_everything
        if checkpoint := self.request.checkpoint:
            try:
                self.model.load_state_dict(checkpoint.state_dict)
            except RuntimeError as error:
                fail(f"{checkpoint.path} holds the weights of another model: {error}")
            if not all(weight.isfinite().all() for weight in self.model.parameters()):
                fail(f"{checkpoint.path} holds weights that are infinite or no numbers.")

    @cached_property
    def results(self) -> Results:
        """The results of the run, whose time begins on first access, once model and data exist."""
        return Results(self.request.name, self.config.seed_everything, Timing())

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Builds a Trainer that measures but writes nothing."""
        return self.trainer_with((), (), logger=False, enable_checkpointing=False, **kwargs)

    def trainer_with(
        self, records: Sequence[Callback], ends: Sequence[Callback], **options: Any
    ) -> Trainer:
        """Builds the Trainer with the callbacks that measure and the given ones.

        Args:
            records: callbacks that record blocks, called before the user's, which may raise.
            ends: callbacks that may end a training, called after the user's, checkpoints last.
            options: options of the Trainer, which override the user's.
        """
        # They are called in this order: timing includes the loss log, the results read timing.
        callbacks = [LossLog(), FiniteLoss(), self.results.timing, self.results, *records]
        callbacks.append(EndRanks())
        bar = self.config.trainer.enable_progress_bar
        if not any(isinstance(callback, LightningsBar) for callback in self._asked_for()):
            if bar is None:
                # A bar in a log file is noise.
                bar = options["enable_progress_bar"] = sys.stdout.isatty()
                callbacks.append(ProgressBar() if bar else ProgressLines())
            elif bar:
                callbacks.append(ProgressBar())
        self.trainer_defaults["callbacks"] = [*callbacks, *ends]
        if self.config.trainer.enable_model_summary is None:
            options["enable_model_summary"] = False
        trainer = super().instantiate_trainer(**options)
        processes.check(trainer)
        limit_waiting(trainer)
        limit_threads(trainer.num_devices)

        def place(callback: Callback) -> int:
            if isinstance(callback, SavesCheckpoints):
                return 3
            return 2 if callback in ends else 0 if callback in callbacks else 1

        trainer.callbacks.sort(key=place)  # type: ignore[attr-defined]
        return trainer

    def _asked_for(self) -> Sequence[Callback]:
        """Returns the callbacks of the configuration."""
        callbacks = self.config_init.trainer.callbacks or []
        return [callbacks] if isinstance(callbacks, Callback) else callbacks

    def announce_checkpoint(self) -> None:
        """Prints which checkpoint is used, on standard error, apart from the answers."""
        print(f"Checkpoint: {self.ckpt_path}", file=sys.stderr)

    @property
    def ckpt_path(self) -> Path | None:
        """The path of the checkpoint to start from."""
        return self.request.checkpoint.path if self.request.checkpoint else None


def _configurations() -> str:
    names = ", ".join(path.stem for path in sorted(CONFIGS.glob("*.yaml")))
    return f"Configurations: {names}; {DEFAULT_CONFIG} by default. Options of the chosen one:"
