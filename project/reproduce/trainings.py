"""Many trainings: side by side on a GPU, or one on each processor, and a part of them on each rank.

LeNet-5 is too small for two threads to halve its time, so many seeds are done soonest with a thread
for each, and too small for a GPU, which has room for many. The numbers are the same however they
are trained: sums do not depend on threads, nor on what else a GPU does.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace

import torch

from project import processes
from project.reproduce import side_by_side
from project.reproduce.ranks import gathered, own_gpu, place
from project.reproduce.record import Task
from project.reproduce.training import Training, Wanted, find, train


def train_all(task: Task, wanted: Sequence[Wanted], timed: int) -> dict[Wanted, Training]:
    """Trains what is wanted and not finished; the same on every rank, where there are several.

    Args:
        task: says where the data is, where runs go, and whether to do them again.
        wanted: what to train, seed by seed from the task's on.
        timed: how many seeds train one after the other on all threads, as one would by hand, so
            that their seconds say something; none where there are ranks.
    """
    ranks, rank = place()
    mine = [one for one in wanted if (one.seed - task.seed) % ranks == rank]
    missing = [one for one in mine if task.force or find(task.folder, one) is None]
    alone = [one for one in missing if ranks == 1 and one.seed - task.seed < timed]
    done = len(mine) - len(missing)
    for n, one in enumerate(alone, done):
        train(task, one, _shifted(task.progress, n, len(mine)))
    together = [one for one in missing if one not in alone]
    _train_side_by_side(task, together, _shifted(task.progress, done + len(alone), len(mine)))
    found = {one: find(task.folder, one) for one in mine}
    return {one: training for part in gathered(found) for one, training in part.items()}


def _shifted(progress: Callable[[float], None], done: int, count: int) -> Callable[[float], None]:
    """Progress of what follows `done` of `count`, in trainings."""
    return lambda more: progress((done + more) / max(1, count))


def _train_side_by_side(
    task: Task, wanted: Sequence[Wanted], progress: Callable[[float], None]
) -> None:
    device = own_gpu()
    finished: set[Wanted] = set()
    if wanted and device is not None:
        finished = side_by_side.train(task, wanted, device, progress)
    rest = [one for one in wanted if one not in finished]
    _train_in_processes(task, rest, lambda more: progress(len(finished) + more))


def _train_in_processes(
    task: Task, wanted: Sequence[Wanted], progress: Callable[[float], None]
) -> None:
    if not wanted:
        return
    # Several processes would wait for each other in front of an accelerator.
    workers = 1 if torch.accelerator.is_available() else torch.get_num_threads()
    context = multiprocessing.get_context("spawn")
    quiet = replace(task, progress=_ignore)  # which can be sent to a process
    with ProcessPoolExecutor(min(workers, len(wanted)), context, _begin) as pool:
        futures = [pool.submit(_train_alone, quiet, one) for one in wanted]
        try:
            for done, future in enumerate(as_completed(futures), 1):
                future.result()
                progress(done)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _begin() -> None:
    """Makes a process one that works alone, on one thread, and no longer than its parent."""
    for name in processes.TORCHRUN | processes.NUMBERING:
        os.environ.pop(name, None)
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _train_alone(task: Task, wanted: Wanted) -> None:
    train(task, wanted, _ignore)
    # It leaves 60 MB in cycles, which Python would look for behind dozens more. What outlives it is
    # the modules' and need not be looked through again.
    gc.collect()
    gc.freeze()


def _end_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _ignore(_: float) -> None: ...
