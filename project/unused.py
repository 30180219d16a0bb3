"""Options without effect in a program, which refuses them and leaves them out of its help."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import Any

from project.errors import UserError

# Lightning's flags that have no use in any of the programs, with their defaults and what to use
# instead.
INSTEAD: dict[str, tuple[object, str]] = {
    "default_root_dir": (
        None,
        "a run goes into runs/NAME/version_N below the current folder; choose NAME by --name, or "
        "start the program in another folder",
    ),
    "gradient_clip_val": (
        None,
        "a training_step takes many steps; clip in on_before_optimizer_step of a callback",
    ),
    "gradient_clip_algorithm": (None, "clip in on_before_optimizer_step of a callback"),
    "accumulate_grad_batches": (1, "a mini-batch of any size fits; raise --data.batch_size"),
    "barebones": (False, "switch off what is not wanted by itself, such as --trainer.logger false"),
    "use_distributed_sampler": (True, "ranks share each mini-batch, whatever their number"),
    "model_registry": (None, "checkpoints stay on this machine; upload one by hand"),
}

# Options without effect if nothing is trained.
OF_TRAINING = (
    *("checkpoint_every", "checkpoint_minutes", "figures"),
    *(f"data.{name}" for name in ("batch_size", "block_size", "val_size", "iterations")),
    *("model.lr", "model.momentum", "model.nesterov", "model.weight_decay", "model.schedule"),
    *("model.rotation", "model.scale", "model.shear", "model.shift", "model.elastic"),
    *("model.decay_iterations", "model.teachers"),
    *("trainer.max_epochs", "trainer.min_epochs", "trainer.max_steps", "trainer.min_steps"),
    *("trainer.max_time", "trainer.limit_train_batches", "trainer.limit_val_batches"),
    *("trainer.overfit_batches", "trainer.val_check_interval", "trainer.check_val_every_n_epoch"),
    *("trainer.num_sanity_val_steps", "trainer.log_every_n_steps", "trainer.enable_checkpointing"),
    *("trainer.logger", "trainer.detect_anomaly", "trainer.reload_dataloaders_every_n_epochs"),
    *("trainer.enable_model_summary", "trainer.enable_autolog_hparams", "trainer.sync_batchnorm"),
)


def check_flags(trainer: Mapping[str, Any]) -> None:
    """Refuses settings of the Trainer that have no use in any program.

    Raises:
        UserError: one of them is not the default.
    """
    for flag, (default, instead) in INSTEAD.items():
        if trainer[flag] != default:
            raise UserError(f"--trainer.{flag} has no use: {instead}.")


def check_devices(devices: Any) -> None:
    """Refuses an invalid number of devices, with the same message for all accelerators.

    Raises:
        UserError: the number is invalid.
    """
    number = str(devices).strip()
    if re.fullmatch(r"[-+]?[\d.]+", number) and not re.fullmatch(r"-1|0*[1-9]\d*", number):
        raise UserError(
            "--trainer.devices is a number above 0 or auto; of GPUs also -1 for all, or a list "
            f"such as [0, 1]. Got {devices}."
        )


def check_options(program: str, words: Iterable[str], unused: Iterable[str]) -> None:
    """Refuses options of a command line that have no effect in a program.

    Args:
        program: name of the program.
        words: words of the command line.
        unused: options without effect, or sections of options.

    Raises:
        UserError: one of them is given.
    """
    for word in words:
        option = word.removeprefix("--").partition("=")[0].removesuffix("+")
        if word.startswith("--") and is_below(option, unused):
            raise UserError(f"--{option} decides nothing in project.{program}: leave it out.")


def is_below(option: str, sections: Iterable[str]) -> bool:
    """Whether an option is one of `sections`, or below one of them.

    >>> is_below("trainer.logger.save_dir", ["trainer.logger"])
    True
    """
    parts = accumulate(option.split("."), lambda whole, part: f"{whole}.{part}")
    return not {*sections}.isdisjoint(parts)
