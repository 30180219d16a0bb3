"""Many trainings at once on one GPU, each equal to that of `project.fit` with its seed.

An iteration of LeNet-5 keeps a small part of a GPU busy. Therefore several learners are recorded,
each with a stream of its own, and the streams overlap: work is queued to them in turns, and no
result is read before the end of a training. A learner trains one seed after the other, since its
recording does not depend on the weights.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import numpy as np
import torch
import yaml
from torch import Tensor

from callbacks.checkpoint import SAVED_AT, SyncedCheckpointIO
from callbacks.files import write_json
from callbacks.loss_log import NAME, Losses, LossFile
from callbacks.results import outcome, record_of
from callbacks.run_folder import claim_version
from data import MNISTDataModule
from data.blocks import BlockLoader, InOrder
from models import learners, metrics
from models.classifier import Classifier
from models.kernels import doors, trust
from models.kernels.looks import send
from models.layers import conv_pool
from models.learners import Run
from models.learners.learner import ObstacleError
from models.learners.recorded import Recorded
from models.schedules import Length
from project.experiments import EXPERIMENTS, RUNS, find_config
from project.precision import in_float32
from project.reproduce.record import Task
from project.reproduce.training import Wanted

AT_ONCE = 16
"""Learners on one GPU; twice as many do not reduce the time per training."""

HELPERS = 4
"""Threads that shuffle epochs and write files during training."""

TURN = 50
"""Iterations queued to a stream at a time, so that no stream has all the waiting work."""

SECTIONS = {"experiment", "seed_everything", "model", "data", "trainer"}
FLAGS = {"max_epochs", "devices"}
"""The supported sections of a configuration, and the supported flags of its Trainer."""

Blocks = list[Any]
"""A list of `data.blocks.Block`."""

Stream = Callable[[], AbstractContextManager[Any]]
"""Returns a context in which work is queued to one stream of the GPU."""


class Done(NamedTuple):
    """The result of a training."""

    losses: Losses
    record: dict[str, Any]
    """Content of results.json."""
    checkpoint: dict[str, Any]


def train(
    task: Task, wanted: Sequence[Wanted], device: torch.device, progress: Callable[[float], None]
) -> set[Wanted]:
    """Trains and tests as `project.fit` does, and writes the files that the report reads.

    Args:
        task: gives the folders of the data and of the runs.
        wanted: the trainings.
        device: a GPU.
        progress: called with the number of trainings that are done.

    Returns:
        The finished trainings. Left out are those for which no learner can be recorded or the GPU
        has too little memory, and those with a loss that is not finite.
    """
    in_float32()
    kinds: dict[tuple[str, int | None], list[Wanted]] = {}
    for one in wanted:
        kinds.setdefault((one.config, one.epochs), []).append(one)
    finished: set[Wanted] = set()
    for some in kinds.values():

        def with_more(done: float, before: int = len(finished)) -> None:
            progress(before + done)

        try:
            _train_kind(task, some, device, finished, with_more)
        except (ObstacleError, torch.OutOfMemoryError) as error:
            why = error if isinstance(error, ObstacleError) else trust.one_line(error)
            print(f"{some[0].config}: one training after the other, since {why}", file=sys.stderr)
        finally:
            torch.cuda.empty_cache()
    return finished


def _train_kind(
    task: Task,
    wanted: Sequence[Wanted],
    device: torch.device,
    finished: set[Wanted],
    progress: Callable[[float], None],
) -> None:
    experiment = Experiment(wanted[0], task.root, device)
    lanes = [Lane(experiment) for _ in wanted[:AT_ONCE]]
    written: list[Future[Wanted]] = []
    with ThreadPoolExecutor(HELPERS) as helpers:

        def keep(one: Wanted, done: Done) -> None:
            # Raises an error such as a full disk now, not after the last training.
            finished.update(future.result() for future in written if future.done())
            if np.isfinite(done.losses).all():
                written.append(helpers.submit(_write, task.folder, one, done))

        waiting = _ahead(wanted, experiment.blocks, helpers)
        # After all recordings: each takes one of the 32 streams that torch hands out in turn.
        turns = [_turns(lane, own_stream(device), waiting, keep) for lane in lanes]
        taken = 0
        try:
            while turns:
                turns = [one for one in turns if next(one, None) is not None]
                taken += len(turns)
                progress(taken / experiment.turns)
        finally:
            if torch.cuda.is_available():  # before work in progress loses its memory
                torch.cuda.synchronize(device)
            finished.update(future.result() for future in written)


def _ahead(
    wanted: Sequence[Wanted], blocks: Callable[[int], Blocks], helpers: Executor
) -> Iterator[tuple[Wanted, Blocks]]:
    """Yields trainings with their blocks, whose epochs are shuffled in advance."""
    coming = deque((one, helpers.submit(blocks, one.seed)) for one in wanted[:AT_ONCE])
    for later in [*wanted[AT_ONCE:], *[None] * len(coming)]:
        one, future = coming.popleft()
        if later is not None:
            coming.append((later, helpers.submit(blocks, later.seed)))
        yield one, future.result()


def _turns(
    lane: Lane,
    stream: Stream,
    waiting: Iterator[tuple[Wanted, Blocks]],
    keep: Callable[[Wanted, Done], None],
) -> Iterator[int]:
    for one, blocks in waiting:
        keep(one, (yield from lane.train(one, blocks, stream)))


class Experiment:
    """One configuration of `project.fit`, to be trained with many seeds.

    Args:
        wanted: a training, which gives the configuration and its length.
        root: folder that holds MNIST/raw.
        device: device of the trainings.

    Raises:
        ObstacleError: the configuration needs more than a loop over epochs.
    """

    def __init__(self, wanted: Wanted, root: Path, device: torch.device) -> None:
        content = yaml.safe_load(find_config(wanted.config).text)
        trainer = content["trainer"]
        if more := (content.keys() - SECTIONS) | (trainer.keys() - FLAGS):
            raise ObstacleError(f"the configuration has {', '.join(sorted(more))}")
        self.device = device
        self.epochs: int = wanted.epochs or trainer["max_epochs"]
        self._model, kind = EXPERIMENTS[content["experiment"]]
        self._settings = content["model"]
        content["data"]["root"], trainer["max_epochs"] = str(root), self.epochs
        self._content = content
        data = kind(**content["data"])
        if not isinstance(data, MNISTDataModule) or data.val_size:
            raise ObstacleError("the data are of another kind, or some are held out for validation")
        data.setup("fit")
        data.setup("test")
        self._data = data
        parts = data.train_images, data.train_labels, data.test_images, data.test_labels
        self._images, self._labels, images, labels = (part.to(device) for part in parts)
        every = InOrder(torch.arange(len(images), device=device))
        self.test = [*BlockLoader(images, labels, every, batch_size=data.eval_batch_size)]
        epoch = -(-len(data.order()) // data.batch_size)
        self.length = Length(epoch, epoch * self.epochs)
        self.turns = self.epochs * -(-epoch // TURN) + 1
        """Turns of a training: one for each block, and one for the test."""

    @property
    def batch_size(self) -> int:
        """The number of images in an iteration."""
        return self._data.batch_size

    def model(self, seed: int) -> Classifier:
        """Returns the untrained model of a seed, on the CPU."""
        # project.fit, too, draws nothing between seeding the generator and drawing the weights.
        torch.manual_seed(seed)
        model = self._model(**self._settings)
        assert isinstance(model, Classifier)
        doors.check_labels_once(self._labels, model.labels, self._images)
        return model

    def blocks(self, seed: int) -> Blocks:
        """Returns the blocks of a training with a seed; their order is not on the device yet."""
        order = self._data.reseeded(seed).order()
        loader = BlockLoader(
            self._images,
            self._labels,
            order,
            batch_size=self.batch_size,
            block_size=TURN,
        )
        blocks: Blocks = []
        for epoch in range(self.epochs):
            order.set_epoch(epoch)
            blocks.extend(loader)
        return blocks

    def rates(self, model: Classifier, first: int, count: int) -> Tensor:
        """Returns the learning rates of `count` iterations from `first` on, (count,) float64."""
        iterations = first + torch.arange(count, dtype=torch.float64)
        return model.lr * model.schedule(iterations, self.length)

    def text(self, wanted: Wanted) -> str:
        """Returns the configuration of one training, overrides included."""
        more = {"name": wanted.name, "seed_everything": wanted.seed}
        return str(yaml.safe_dump(self._content | more))


class Lane:
    """A recorded learner, which does one training after the other.

    Raises:
        ObstacleError: no learner can be recorded, training images are distorted, by numbers that
            depend on the Trainer's iteration, or there are teachers.
    """

    def __init__(self, experiment: Experiment) -> None:
        self._experiment, device = experiment, experiment.device
        self._model = model = experiment.model(0).to(device)
        if any(model.distortion) or model.teachers:
            raise ObstacleError("images are distorted, or there are teachers")
        # With several ranks, each tests seeds of its own.
        metrics.keep_to_this_rank(model.metrics)
        optimizer = model.configure_optimizers()
        run = Run(device, "32-true", 1, experiment.batch_size, optimizer, is_scheduled=True)
        learner, model.why_not_faster = learners.start(model, run, among=Recorded)
        self._optimizer, self._learner, model.learner = optimizer, learner, learner.name
        with conv_pool.compiling():
            conv_pool.compile_ahead(model.net, device, gradient=False)

    def train(self, wanted: Wanted, blocks: Blocks, stream: Stream) -> Generator[int, None, Done]:
        """Trains and tests with a seed; yields after each queued block, for the other lanes."""
        experiment, model = self._experiment, self._model
        with stream():
            model.load_state_dict(experiment.model(wanted.seed).state_dict())
            for state in self._optimizer.state.values():
                state["momentum_buffer"].zero_()
            orders = [block.order for block in blocks]
            lengths = [len(part) for part in orders]
            sent = send(torch.cat(orders), experiment.device).split_with_sizes(lengths)
            blocks = [block._replace(order=part) for block, part in zip(blocks, sent, strict=True)]
        losses, first = [], 0
        for number, block in enumerate(blocks):
            count = len(block.sizes)
            with stream():
                losses.append(self._learner(block, experiment.rates(model, first, count)))
            first += count
            yield number
        with stream():
            found = torch.cat(losses).float(), self._tested()
        yield len(blocks)  # the others queue work before this result is read
        with stream():
            return self._done(wanted, *found)

    def _tested(self) -> dict[str, Tensor]:
        with torch.inference_mode():
            for number, block in enumerate(self._experiment.test):
                self._model.test_step(block, number)
            return self._model.evaluated("test")

    def _done(self, wanted: Wanted, each: Tensor, found: dict[str, Tensor]) -> Done:
        experiment, model = self._experiment, self._model
        losses = each.cpu().numpy()
        test = outcome({f"test/{name}": value.item() for name, value in found.items()}, "test")
        record = record_of(
            model,
            config=wanted.name,
            seed=wanted.seed,
            iterations=len(losses),
            world_size=1,
            device=experiment.device,
            validation=None,
            test=test,
            # It shared the device, so its own time is unknown.
            seconds={},
            images_per_second=None,
        )
        weights = model.state_dict().items()
        checkpoint = {
            "epoch": experiment.epochs - 1,
            "global_step": len(losses),
            "pytorch-lightning_version": lightning.__version__,
            "state_dict": {name: part.to("cpu", copy=True) for name, part in weights},
            model.CHECKPOINT_HYPER_PARAMS_KEY: dict(model.hparams),
            "config": experiment.text(wanted),
            SAVED_AT: time.time(),
        }
        return Done(losses, record, checkpoint)


def own_stream(device: torch.device) -> Stream:
    """Returns a context of a new stream, whose work waits for the work queued so far.

    Args:
        device: a GPU.
    """
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(device))
    return lambda: torch.cuda.stream(stream)


def _write(folder: Path, wanted: Wanted, done: Done) -> Wanted:
    """Writes the files of a run, results.json last, since it marks the run as finished."""
    parent = folder / RUNS / wanted.name
    run = parent / f"version_{claim_version(parent)}"
    LossFile(run / NAME, done.losses).close()
    name = f"epoch={done.checkpoint['epoch']}-step={done.checkpoint['global_step']}.ckpt"
    SyncedCheckpointIO().save_checkpoint(done.checkpoint, run / "checkpoints" / name)
    write_json(run / "results.json", done.record)
    return wanted
