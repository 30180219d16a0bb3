"""What the code relies on in Lightning, torch and others that nobody has promised.

Each test is one private or undocumented fact, with the file that needs it. One that fails after an
upgrade says what has changed; the file then wants another way, and the fact another test.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import re
from datetime import timedelta
from pathlib import Path
from typing import Literal

import lightning
import numba
import pytest
import torch
import torch.distributed as dist
from helpers import python, trainer
from jsonargparse import DefaultHelpFormatter
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins import TorchSyncBatchNorm
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.model_helpers import is_overridden
from numba.core.caching import FunctionCache, IndexDataCacheFile
from torch import nn
from torch.nn.modules import module as torch_module
from torch.utils.tensorboard import SummaryWriter

from models.layers import hooks
from project.experiments import STATE
from project.parser import UNKNOWN
from project.quiet import CHATTER, NOISE

pytestmark = pytest.mark.filterwarnings("ignore")

COUNTS = ("ready", "started", "processed", "completed")


class Loader:
    """Four batches, with a position, and a sampler that hears of epochs."""

    batch_size = 1

    def __init__(self):
        self.sampler = self
        self.epochs, self.loaded = [], None

    def set_epoch(self, epoch):
        self.epochs.append(epoch)

    def __len__(self):
        return 4

    def __iter__(self):
        return iter(torch.ones(4, 1))

    def state_dict(self):
        return {"position": 7}

    def load_state_dict(self, state):
        self.loaded = state


class Module(LightningModule):
    """Takes two steps by hand in a training_step."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.layer = nn.Linear(1, 1)
        self.synchronizes = []

    def training_step(self, batch, _):
        for _ in range(2):
            wrapped = self.trainer.strategy.model
            self.synchronizes.append(getattr(wrapped, "require_backward_grad_sync", None))
            self.optimizers().zero_grad()
            self.manual_backward(self.layer(batch).sum())
            self.optimizers().step()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Saves(Callback):
    """Keeps the checkpoint of the second block."""

    checkpoint = None

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 4:
            connector = trainer._checkpoint_connector
            self.checkpoint = connector.dump_checkpoint(weights_only=False)


def trained(folder, **options):
    module, loader = Module(), Loader()
    run = trainer(folder, **{"max_epochs": 1, **options})
    run.fit(module, loader)
    return module, run


@pytest.fixture
def saved(tmp_path):
    """A checkpoint inside an epoch."""
    saves = Saves()
    trained(tmp_path, callbacks=[saves])
    return saves.checkpoint


def test_global_step_counts_the_steps_of_the_loop_for_manual_optimization(tmp_path):
    """models/progress.py adds to these those that Lightning has not seen."""
    _, run = trained(tmp_path)
    assert run.global_step == 2 * 4
    steps = run.fit_loop.epoch_loop.manual_optimization.optim_step_progress
    for counts in (steps.total, steps.current):
        counts.ready += 3
        counts.completed += 3
    assert run.global_step == 2 * 4 + 3


def test_what_is_logged_in_a_training_is_kept_in_a_dictionary(tmp_path):
    """models/progress.py empties it, of what was logged before."""
    run = trainer(tmp_path)
    assert isinstance(run.fit_loop.epoch_loop._results, dict)


def test_logs_stand_at_a_step_that_counts_one_for_each_batch(tmp_path):
    """models/progress.py makes it count iterations; Lightning adds one behind the batch."""
    steps = []

    class Sees(Callback):
        def on_train_batch_start(self, trainer, *_):
            steps.append(trainer.fit_loop.epoch_loop._batches_that_stepped)

    trained(tmp_path, callbacks=[Sees()])
    assert steps == [0, 1, 2, 3]


def test_a_checkpoint_callback_keeps_its_interval_here(tmp_path):
    """data/counts.py reads it."""
    assert ModelCheckpoint(tmp_path)._every_n_train_steps == 0
    assert ModelCheckpoint(tmp_path, every_n_train_steps=3)._every_n_train_steps == 3


def test_a_trainer_keeps_the_counts_of_its_flags_here(tmp_path):
    """data/counts.py has them in blocks while it trains."""
    flags = {"limit_train_batches": 0.5, "val_check_interval": 7, "overfit_batches": 0}
    run = trainer(tmp_path, **flags)
    assert {name: getattr(run, name) for name in flags} == flags
    assert trainer(tmp_path, overfit_batches=3).limit_train_batches == 3


def test_the_loops_of_a_running_training_count_epochs_and_batches(tmp_path):
    """models/progress.py reads the position from these, and sets it."""
    _, run = trained(tmp_path)
    epochs = run.fit_loop.epoch_progress.current
    assert (epochs.started, epochs.processed) == (1, 1)
    batches = run.fit_loop.epoch_loop.batch_progress
    assert batches.total.processed == batches.current.processed == 4
    batches.current.load_state_dict(dict.fromkeys(batches.current.state_dict(), 9))
    assert all(getattr(batches.current, name) == 9 for name in COUNTS)


def test_a_checkpoint_says_by_these_keys_where_the_loops_stand(saved):
    """models/progress.py rewrites them."""
    fit = saved["loops"]["fit_loop"]
    for part in ("epoch_progress", "epoch_loop.batch_progress"):
        for period in ("total", "current"):
            assert set(fit[part][period]) >= set(COUNTS), part
    assert "is_last_batch" in fit["epoch_loop.batch_progress"]
    assert fit["state_dict"]["combined_loader"] == [{"position": 7}]


def test_a_training_goes_on_inside_an_epoch_that_is_ready_and_not_processed(saved, tmp_path):
    """models/progress.py makes a checkpoint say so."""
    torch.save(saved, tmp_path / "half.ckpt")
    module, loader = Module(), Loader()
    run = trainer(tmp_path, max_epochs=1)
    run.fit(module, loader, ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert loader.loaded == {"position": 7}, "a loader with a state is asked to go on"
    assert run.current_epoch == 1


def test_the_connector_makes_a_checkpoint_without_asking_other_ranks(saved):
    """callbacks/checkpoint.py saves by it where a rank may be lost; experiments.py reads STATE."""
    assert saved.keys() >= STATE | {"state_dict", "global_step"}


def test_a_loader_s_sampler_hears_of_every_epoch(tmp_path):
    """data/blocks.py draws an epoch's order by its number."""
    loader = Loader()
    trainer(tmp_path, max_epochs=3).fit(Module(), loader)
    assert loader.epochs[-3:] == [0, 1, 2]


def test_the_trainer_keeps_what_detect_anomaly_was(tmp_path):
    """models/learners/run.py takes another learner by it."""
    assert trainer(tmp_path, detect_anomaly=True)._detect_anomaly is True


def test_the_trainer_keeps_which_plugins_it_was_given(tmp_path):
    """project/fit.py and recorded_run.py ask for what is synchronized, and who writes."""
    plain, given = trainer(tmp_path), trainer(tmp_path, sync_batchnorm=True)
    assert plain._accelerator_connector._layer_sync is None
    assert isinstance(given._accelerator_connector._layer_sync, TorchSyncBatchNorm)
    assert plain.strategy._checkpoint_io is None


def test_a_module_that_nobody_trains_has_no_trainer():
    """models/classifier.py and lenet.py ask without the property, which raises."""
    assert Module()._trainer is None


def test_a_step_by_hand_calls_the_closure_once(tmp_path):
    """models/learners/eager.py leaves steps that somebody hears of to LightningOptimizer."""
    calls = []

    class Closed(Module):
        def training_step(self, batch, _):
            optimizer = self.optimizers()
            assert isinstance(optimizer, LightningOptimizer)
            assert isinstance(optimizer.optimizer, torch.optim.SGD)
            self.optimizer_step(0, 0, optimizer, lambda: calls.append(1))

    run = trainer(tmp_path, max_epochs=1)
    run.fit(Closed(), Loader())
    assert len(calls) == run.global_step == 4


def test_hooks_that_are_overridden_are_known():
    """models/learners/run.py looks for listeners by it."""

    class Hears(Callback):
        def on_after_backward(self, *_):
            pass

    assert is_overridden("on_after_backward", Hears(), parent=Callback)
    assert not is_overridden("on_before_backward", Hears(), parent=Callback)
    assert not is_overridden("backward", Module(), parent=LightningModule)


@pytest.mark.parametrize("precision", ["32-true", "64-true", "bf16-mixed"])
def test_precisions_are_plugins_of_one_package(precision, tmp_path):
    """models/learners/run.py tells Lightning's from a user's; recorded.py enters its context."""
    run = trainer(tmp_path, precision=precision)
    package = type(run.precision_plugin).__module__
    assert package.startswith("lightning.pytorch.plugins.precision.")
    with run.precision_plugin.forward_context():
        assert torch.is_autocast_enabled("cpu") == (precision == "bf16-mixed")


DDP = """
from pathlib import Path
from lightning.pytorch.strategies import ddp
from test_lightning_contract import trained

prepared = []
prepare = ddp.prepare_for_backward
ddp.prepare_for_backward = lambda *args: prepared.append(prepare(*args))
module, _ = trained(Path("."), strategy="ddp", devices=1)
assert module.synchronizes == [True] * 8, module.synchronizes
assert len(prepared) == 8, "DDP itself prepares one backward pass for a training_step"
"""


@pytest.mark.slow
def test_under_ddp_every_manual_backward_averages_its_gradients(tmp_path):
    """models/learners/eager.py takes K of them in a training_step."""
    tests = Path(__file__).parent
    done = python("-c", DDP, folder=tmp_path, PYTHONPATH=f"{tests.parent}:{tests}")
    assert done.returncode == 0, done.stderr


def test_a_ddp_strategy_knows_how_long_to_wait_for_a_rank(tmp_path):
    """models/learners/run.py hands it on to the sums of ranks."""
    run = trainer(tmp_path, devices=2, strategy=DDPStrategy(timeout=timedelta(seconds=7)))
    assert run.strategy._timeout == timedelta(seconds=7)


def test_strategies_that_start_ranks_inside_a_program_have_this_launcher(tmp_path):
    """project/processes.py refuses them."""
    run = trainer(tmp_path, devices=2, strategy="ddp_spawn")
    assert isinstance(run.strategy.launcher, _MultiProcessingLauncher)


def test_rank_and_environment_of_a_trainer_can_be_checked(tmp_path):
    """project/processes.py does, and sets the rank of those who write."""
    assert isinstance(rank_zero_only.rank, int)
    cluster = trainer(tmp_path, devices=2, strategy="ddp").strategy.cluster_environment
    assert isinstance(cluster, LightningEnvironment)
    assert not cluster.creates_processes_externally
    cluster.validate_settings(2, 1)


def test_torch_says_by_these_names_what_is_lost_between_ranks():
    """project/errors.py gives them one line."""
    assert issubclass(dist.DistNetworkError, RuntimeError)
    assert issubclass(dist.DistStoreError, RuntimeError)


def test_modules_parameters_and_optimizers_keep_their_hooks_here():
    """models/learners/obstacles.py looks whether there are any."""
    layer = nn.Linear(1, 1)
    kinds = {
        "_forward_hooks": layer.register_forward_hook,
        "_forward_pre_hooks": layer.register_forward_pre_hook,
        "_backward_hooks": layer.register_full_backward_hook,
        "_backward_pre_hooks": layer.register_full_backward_pre_hook,
    }
    for name, register in kinds.items():
        assert not getattr(layer, name), name
        register(lambda *_: None)
        assert len(getattr(layer, name)) == 1, name
    weight = layer.weight
    assert not weight._backward_hooks
    assert not weight._post_accumulate_grad_hooks
    weight.register_hook(lambda grad: grad)
    weight.register_post_accumulate_grad_hook(lambda _: None)
    assert len(weight._backward_hooks) == len(weight._post_accumulate_grad_hooks) == 1
    optimizer = torch.optim.SGD(layer.parameters(), lr=1)
    optimizer.register_step_pre_hook(lambda *_: None)
    optimizer.register_step_post_hook(lambda *_: None)
    assert len(optimizer._optimizer_step_pre_hooks) == 1
    assert len(optimizer._optimizer_step_post_hooks) == 1


def test_hooks_for_all_modules_are_known():
    """models/learners/obstacles.py asks."""
    assert not hooks.any_everywhere()
    for register in (
        torch_module.register_module_forward_hook,
        torch_module.register_module_forward_pre_hook,
        torch_module.register_module_full_backward_hook,
        torch_module.register_module_full_backward_pre_hook,
    ):
        handle = register(lambda *_: None)
        assert hooks.any_everywhere()
        handle.remove()


def test_a_tensor_counts_what_was_written_into_it():
    """models/kernels/doors.py and cuda.py look again at one that was written to."""
    tensor = torch.zeros(2)
    before = tensor._version
    tensor[0] = 1
    assert tensor._version > before


def test_many_tensors_are_updated_at_once():
    """models/learners/iteration.py takes torch's own step by it, the rate a tensor."""
    weights, gradients = [torch.ones(2), torch.ones(3)], [torch.ones(2), torch.ones(3)]
    velocities = [torch.ones(2), torch.ones(3)]
    torch._fused_sgd_(
        weights,
        gradients,
        velocities,
        weight_decay=0.5,
        momentum=0.5,
        lr=torch.tensor(0.5),
        dampening=0.0,
        nesterov=False,
        maximize=False,
        is_first_step=False,
    )
    assert all(torch.equal(weight, torch.zeros_like(weight)) for weight in weights)
    assert all(torch.equal(velocity, torch.full_like(velocity, 2)) for velocity in velocities)


def test_the_writer_of_events_stands_in_a_place_where_another_can(tmp_path):
    """callbacks/tensorboard.py puts callbacks/event_file.py there."""
    writer = SummaryWriter(tmp_path)
    old = writer.file_writer.event_writer
    assert Path(old._file_name).is_file()
    for method in ("get_logdir", "add_event", "flush", "close"):
        assert callable(getattr(old, method)), method
    writer.close()
    assert writer.file_writer is None, "one that was closed"
    writer._get_file_writer()
    assert writer.file_writer.event_writer is not old, "and is opened again when it is asked for"
    writer.close()


def test_ranks_that_do_not_write_have_a_dummy_for_a_writer(tmp_path, monkeypatch):
    """callbacks/tensorboard.py overrides the property by the same decorator."""
    assert isinstance(TensorBoardLogger.experiment, property)
    assert callable(rank_zero_experiment)
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    TensorBoardLogger(tmp_path).experiment.add_scalar("a", 1.0)
    assert not list(tmp_path.iterdir())


def test_the_progress_bar_shows_the_version_of_a_logger_under_this_name():
    """callbacks/progress.py leaves it out."""
    assert '"v_num"' in inspect.getsource(inspect.getmodule(ProgressBar.get_metrics))


def test_checkpoints_come_last_and_the_best_is_asked_of_them(tmp_path):
    """callbacks/checkpoint.py is one; project/program.py sorts callbacks as Lightning does."""
    mine = ModelCheckpoint(tmp_path)
    run = trainer(tmp_path, enable_checkpointing=True, callbacks=[mine, Saves()])
    assert run.callbacks[-1] is mine
    assert run.checkpoint_callbacks == [mine]
    assert isinstance(mine, Checkpoint)
    assert mine.best_model_path == ""


def test_a_trainer_has_its_callbacks_and_data_as_attributes(tmp_path):
    """project/ and models/ read and sort them where the types do not say so."""
    _, run = trained(tmp_path)
    assert isinstance(run.callbacks, list)
    assert getattr(run, "datamodule", None) is None, "of a training without one"
    assert isinstance(run.train_dataloader, Loader), "the one that was given, not wrapped"


class Options:
    """Has options.

    Args:
        lr: how fast.
        kind: one of two.
    """

    def __init__(self, lr: float = 0.1, kind: Literal["a", "b"] = "a") -> None: ...


def parser():
    made = LightningArgumentParser(exit_on_error=False, formatter_class=DefaultHelpFormatter)
    made.add_class_arguments(Options, "model")
    made.add_argument("--config", action="config")
    return made


def test_the_parser_keeps_its_options_here():
    """project/parser.py explains, hints and sorts by them."""
    made = parser()
    assert "how fast" in str(made._option_string_actions["--model.lr"].help)
    names = {action.dest for action in made._actions if action.option_strings}
    assert names >= {"model.lr", "model.kind", "config"}
    assert "model" in made.groups
    assert any("Has options" in str(group.title) for group in made._action_groups)


def test_the_help_of_an_option_can_be_changed_here():
    """project/parser.py takes the types of whole libraries out."""
    assert issubclass(DefaultHelpFormatter, argparse.HelpFormatter)
    assert callable(DefaultHelpFormatter._get_help_string)


@pytest.mark.parametrize(
    "argument",
    ["--modle=1", "--model.c4=1", "--config={modle: {lr: 1}}", "--config={model: {l: 1}}"],
)
def test_an_unknown_option_is_told_in_words_that_are_understood(argument):
    """project/parser.py finds the option that was meant in them."""
    with pytest.raises(argparse.ArgumentError) as error:
        parser().parse_args([argument])
    assert UNKNOWN.search(str(error.value)), error.value


def test_printing_the_configuration_can_be_seen_while_it_is_dumped():
    """project/parser.py comments it then, and only then."""
    seen = []

    class Parser(LightningArgumentParser):
        def dump(self, *args, **options):
            seen.append(hasattr(self, "print_config"))
            return super().dump(*args, **options)

    made = Parser(exit_on_error=False)
    made.add_argument("--config", action="config")
    made.add_argument("--lr", type=float, default=0.1)
    made.dump(made.parse_args([]))
    with pytest.raises(SystemExit):
        made.parse_args(["--print_config"])
    assert seen[0] is False
    assert seen[-1] is True


def test_the_command_line_calls_these_to_build_a_run():
    """project/program.py and recorded_run.py override them."""
    steps = ("add_arguments_to_parser", "parse_arguments", "instantiate_classes")
    for name in (*steps, "instantiate_trainer"):
        assert callable(getattr(LightningCLI, name)), name
    assert "trainer_defaults" in inspect.getsource(LightningCLI), "where callbacks are put"


def test_the_configuration_is_saved_by_a_callback_with_these_attributes():
    """project/recorded_run.py writes it elsewhere, and into checkpoints too."""
    saves = SaveConfigCallback(parser(), None)
    assert saves.parser.dump
    assert saves.config is None
    assert saves.already_saved is False
    assert list(inspect.signature(saves.setup).parameters) == ["trainer", "pl_module", "stage"]


def test_lightning_refuses_from_inside_its_own_modules(tmp_path):
    """project/errors.py knows by the innermost frame that it is a refusal, not a fault of ours."""
    with pytest.raises(ValueError, match="precision") as error:
        trainer(tmp_path, precision="7")
    *_, innermost = error.traceback
    assert str(innermost.frame.f_globals["__name__"]).startswith("lightning.")


def messages(folder):
    """All texts in a package, with what an f-string fills in left out."""
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
            if isinstance(node, ast.JoinedStr):
                parts = (str(getattr(part, "value", "")) for part in node.values)
                yield "".join(
                    part if isinstance(value, ast.Constant) else "list"
                    for part, value in zip(parts, node.values, strict=True)
                )


def test_every_message_that_is_silenced_is_still_said():
    """project/quiet.py; of the last one of the warnings torch is the author."""
    *of_lightning, _ = (*CHATTER, *NOISE)
    said = list(messages(Path(lightning.__file__).parent))
    for pattern in of_lightning:
        assert any(re.match(pattern, text, re.IGNORECASE) for text in said), pattern


def test_numba_caches_a_function_by_these_parts():
    """models/kernels/compiled.py puts files of its own behind them."""
    assert hasattr(numba.njit(lambda: None), "_cache")
    init = inspect.getsource(FunctionCache.__mro__[1].__init__)
    for name in ("_cache_path", "_impl", "_cache_file"):
        assert f"self.{name}" in init, name
    for name in ("_data_path", "_data_name", "_dump", "_open_for_write", "load", "save"):
        assert callable(getattr(IndexDataCacheFile, name)), name
    assert "self._source_stamp" in inspect.getsource(IndexDataCacheFile.__init__)
