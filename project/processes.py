"""Decides whether this process works alone or with others, and connects those.

Launchers of several processes (torchrun, Lightning, srun) number them by environment variables.
These can be left over without such a job: in a shell, or in a batch job that never calls srun.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from datetime import timedelta
from typing import TYPE_CHECKING

from project.errors import UserError

if TYPE_CHECKING:
    from lightning.pytorch import Trainer
    from torch._C._distributed_c10d import TCPStore

MEETING = {"MASTER_ADDR", "MASTER_PORT"}
# The variables that torchrun sets in every process that it starts.
TORCHRUN = MEETING | {
    "TORCHELASTIC_RUN_ID",
    "RANK",
    "LOCAL_RANK",
    "GROUP_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "GROUP_WORLD_SIZE",
}
# The variables that make a process one of several, if they are complete.
NUMBERING = (TORCHRUN - MEETING) | {"NODE_RANK", "TORCHELASTIC_RESTART_COUNT"}
WAIT = 300  # seconds to wait for the first rank of a start
PORT = "project/port"  # key in torchrun's store: port at which the newest start meets

# Kept, since it serves as long as the process lives.
_store: TCPStore | None = None


def settle() -> None:
    """Decides whether this process works alone, before anything reads the environment.

    Variables that do not make up a job are removed, with a line that names them. The ranks of
    torchrun meet and agree on whether this is the job's first start.

    Raises:
        UserError: the torchrun of the variables does not answer, or a variable is not a number.
    """
    _settle_slurm()
    left = sorted(NUMBERING & os.environ.keys())
    if left and not _is_job():
        values = " ".join(f"{name}={os.environ.pop(name)}" for name in left)
        print(
            f"Ignored: {values}, left over from another job; here one process starts alone. "
            f"To be rid of this line: unset {' '.join(left)}",
            file=sys.stderr,
        )
    if _is_job():
        _check_numbers(NUMBERING - {"TORCHELASTIC_RUN_ID"} | {"MASTER_PORT"})
    size = ranks()
    if "TORCHELASTIC_RUN_ID" in os.environ and size is not None and _store is None:
        _meet(size)


def leave() -> None:
    """Destroys the process group before Python shuts down, as torch requires."""
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


def ranks() -> int | None:
    """Returns the number of processes started to work together; None for one started alone."""
    is_numbered = bool({"RANK", "LOCAL_RANK"} & os.environ.keys())
    return int(os.environ["WORLD_SIZE"]) if is_numbered and "WORLD_SIZE" in os.environ else None


def srun_tasks() -> int:
    """Returns the number of processes that srun started; 1 in a batch script and in a shell."""
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))


def check(trainer: Trainer) -> None:
    """Refuses a Trainer whose processes are not those of the environment.

    Raises:
        UserError: the results would stay in other processes, or the numbers of ranks differ.
        ValueError: Lightning finds that the numbers of ranks differ.
    """
    from lightning.fabric.plugins.environments.lightning import LightningEnvironment
    from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
    from lightning.pytorch.utilities import rank_zero_only

    if isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):
        raise UserError(
            "this strategy starts its ranks inside the program, where their answers would stay; "
            "use --trainer.strategy ddp, or torchrun."
        )
    # Otherwise it is the environment's, with which a single device's logger could be a dummy.
    rank_zero_only.rank = trainer.global_rank  # type: ignore[attr-defined]
    cluster = getattr(trainer.strategy, "cluster_environment", None)
    if cluster is not None:
        cluster.validate_settings(trainer.num_devices, trainer.num_nodes)
    if isinstance(cluster, LightningEnvironment):
        _check_own_ranks(trainer, cluster.creates_processes_externally)
    _check_size(trainer)


def _check_numbers(names: set[str]) -> None:
    for name in sorted(names & os.environ.keys()):
        if not os.environ[name].isdecimal():
            raise UserError(
                f"the environment says {name}={os.environ[name]}, which is no number; set it to "
                f"one, or, where no others were started: unset {name}"
            )


def _check_own_ranks(trainer: Trainer, are_started: bool) -> None:
    if trainer.num_nodes > 1 and not os.environ.keys() >= MEETING:
        raise UserError(
            f"the machines of --trainer.num_nodes {trainer.num_nodes} have nowhere to meet: start "
            "torchrun or srun on them, or set MASTER_ADDR, MASTER_PORT and NODE_RANK on each."
        )
    if trainer.world_size > 1:
        _check_numbers({"MASTER_PORT"})
    if trainer.num_nodes == 1 and not are_started:
        # Lightning will start them on this machine; a leftover address may name another.
        os.environ.pop("MASTER_ADDR", None)


def _check_size(trainer: Trainer) -> None:
    size = trainer.world_size
    if ranks() not in (None, size) or trainer.global_rank >= size:
        names = sorted({"RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE"} & os.environ.keys())
        values = ", ".join(f"{name}={os.environ[name]}" for name in names)
        raise UserError(
            f"the environment says {values}, the options that the ranks are {size}; set "
            "--trainer.devices and --trainer.num_nodes, start the ranks by torchrun, or, where no "
            f"others were started: unset {' '.join(names)}"
        )
    if srun_tasks() > size == 1 and os.environ.get("SLURM_PROCID") == "0":
        print(
            f"srun has started {srun_tasks()} of this program; each is a run of its own. One run "
            "of them all has --trainer.strategy ddp and their number as --trainer.devices.",
            file=sys.stderr,
        )


def _is_job() -> bool:
    """Whether the variables are enough for ranks to find each other."""
    given = os.environ.keys()
    if "TORCHELASTIC_RUN_ID" in given:
        return given >= TORCHRUN
    is_numbered = "WORLD_SIZE" in given and bool({"RANK", "LOCAL_RANK"} & given)
    return given >= MEETING and (is_numbered or "NODE_RANK" in given)


def _settle_slurm() -> None:
    """Lets Lightning detect SLURM only if srun has started several processes."""
    tasks = srun_tasks()
    if tasks == 1:
        # The number of the whole job: Lightning would wait for ranks that are never started.
        os.environ.pop("SLURM_NTASKS", None)
    else:
        # Otherwise it is the job's or missing, which Lightning refuses.
        nodes = int(os.environ.get("SLURM_STEP_NUM_NODES", "1"))
        os.environ["SLURM_NTASKS_PER_NODE"] = str(tasks // nodes)


def _meet(size: int) -> None:
    """Connects the ranks of one start of torchrun by a store of their own.

    torchrun's store serves all its starts: after a lost rank it still holds the addresses of the
    earlier ranks, which the new ones would try to reach. Moreover, each agent counts only the
    failures that it saw itself, so ranks on two machines may disagree on whether to resume from a
    checkpoint.
    """
    global _store
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    rank = int(os.environ["RANK"])
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        if not _answers(host, port):
            raise UserError(
                f"no torchrun answers at MASTER_ADDR={host}, MASTER_PORT={port}; if its variables "
                "are left over: unset TORCHELASTIC_RUN_ID RANK LOCAL_RANK WORLD_SIZE"
            )
        agent = _connect(host, port)
        if rank == 0:
            _store = _connect(host, 0, serves=True)
            agent.set(PORT, str(_store.port))
        port = _newest_port(agent, host)
        os.environ |= {"MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "False"}
    _store = _store or _connect(host, port, serves=rank == 0)
    _store.set(f"restarts/{rank}", os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    restarts = max(int(_store.get(f"restarts/{other}")) for other in range(size))
    os.environ["TORCHELASTIC_RESTART_COUNT"] = str(restarts)


def _connect(host: str, port: int, *, serves: bool = False) -> TCPStore:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    return TCPStore(
        host,
        port,
        is_master=serves,
        # The process group will open another server at the same port in this process.
        multi_tenant=serves,
        wait_for_workers=False,
        timeout=timedelta(seconds=WAIT),
    )


def _newest_port(agent: TCPStore, host: str) -> int:
    """Returns the port of this start's first rank; that of an earlier start does not answer."""
    end = time.monotonic() + WAIT
    while time.monotonic() < end:
        port = int(agent.get(PORT))
        if _answers(host, port):
            return port
        time.sleep(0.1)
    raise UserError(f"rank 0 has not come within {WAIT} seconds; what it printed says why.")


def _answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=5) as connection:
            # If no process listens, the system may connect a free port to itself.
            return bool(connection.getsockname() != connection.getpeername())
    except OSError:
        return False
