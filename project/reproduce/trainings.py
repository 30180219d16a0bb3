"""Many trainings: side by side on a GPU, or one on each processor, shared among the ranks.

LeNet-5 is too small for two threads to halve its time, so many seeds finish soonest with a thread
for each. It is also too small to fill a GPU, which has room for many. Results do not depend on how
they are trained: sums depend neither on threads nor on other work of a GPU.
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
    """Does the wanted trainings that are not finished; returns all of them on every rank.

    Args:
        task: gives the folders of data and runs, and whether to repeat finished trainings.
        wanted: the trainings, seed by seed from the task's on.
        timed: number of seeds that train one after the other on all threads, as by hand, so that
            their seconds are meaningful; none with several ranks.
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
    """Returns the progress of trainings that follow `done` of `count`."""
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
    # Several processes would wait for each other at an accelerator.
    workers = 1 if torch.accelerator.is_available() else torch.get_num_threads()
    context = multiprocessing.get_context("spawn")
    quiet = replace(task, progress=_ignore)  # which can be pickled
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
    """Makes a process work alone, on one thread, and end with its parent."""
    for name in processes.TORCHRUN | processes.NUMBERING:
        os.environ.pop(name, None)
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _train_alone(task: Task, wanted: Wanted) -> None:
    train(task, wanted, _ignore)
    # A training leaves 60 MB in cycles, which Python would collect only after dozens more. The
    # objects that remain belong to modules and need not be scanned again.
    gc.collect()
    gc.freeze()


def _end_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _ignore(_: float) -> None: ...
