"""Trains by a CUDA graph: one launch for an iteration of dozens of operators.

LeNet-5 computes for microseconds on a GPU; launched operator by operator from Python, an iteration
takes as long as Python does. It is recorded once and replayed for every mini-batch of the size that
it was recorded for; mini-batches of other sizes run the same operators one by one.

A CUDA graph reads and writes fixed addresses. So the images, labels, rates and random numbers of
many iterations are copied into `Memory` first; the recorded iteration reads those of the next one,
advances a counter, and writes its loss. Nothing is copied or synchronised in between.

Autocast must not cache its casts of the weights (Lightning's does not): a recording would go on
reading the first ones.

Without a GPU the tests cover the operators, not the recording.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from models.kernels import trust
from models.kernels.looks import send
from models.kernels.update import Update
from models.layers import conv_pool
from models.learners import graph, obstacles, proof
from models.learners.compiled import LAYERS_OF
from models.learners.iteration import Iteration, Memory, Piece
from models.learners.learner import Block, Learner, ObstacleError, Run

if TYPE_CHECKING:
    from models.classifier import Classifier

BOUNDS = {"32-true": 1e-3, "bf16-mixed": 0.1}
"""The largest relative error of a recorded step, compared with the step in float64."""

AT_ONCE, IMAGES = 128, 2**18
"""The most iterations, and about the most images, whose inputs are copied at a time."""


class Recorded(Learner):
    """Trains LeNet-5, or the network of 1998, on GPUs, in float32 or under bfloat16 autocast.

    On several ranks the sum of the gradients over them is part of the recording or, if it cannot be
    recorded, called between two recordings.

    Raises:
        ObstacleError: an iteration cannot be recorded, or the recorded one takes a wrong step.
    """

    name = "recorded"
    devices = ("cuda",)
    iteration: ClassVar[type[Iteration]] = Iteration
    """The iteration that is recorded."""

    def __init__(self, model: Classifier, run: Run) -> None:
        assert isinstance(run.optimizer, torch.optim.SGD)
        self._model, self._run, self._optimizer = model, run, run.optimizer
        # The first rank's part; other sizes are not recorded.
        self._size = -(-(run.batch_size or 1) // run.ranks)
        self._record()

    def _record(self) -> None:
        model, run = self._model, self._run
        memory = self._memory()
        iteration = self.iteration(model, memory, self._optimizer, run.all_reduce)
        with conv_pool.compiling(), iteration.undone():
            if "mixed" not in run.precision:
                conv_pool.compile_ahead(model.net, run.device, gradient=True)
            with _autocast(run):
                self._launch = _recorded(iteration, run)
                _prove(model, iteration, self._launch, run)
        self._iterations = {self._size: iteration}
        self._read = iteration.reads(self._optimizer)

    def _memory(self) -> Memory:
        """Room for as many iterations as are laid out at a time.

        Raises:
            ObstacleError: there is none, here or on another rank.
        """
        model, run, memory, error = self._model, self._run, None, ""
        count = max(1, min(AT_ONCE, IMAGES // max(1, self._size)))
        try:
            memory = Memory(model, run.device, self._size, count)
        except torch.OutOfMemoryError as failure:
            error = trust.one_line(failure)
        if _on_any_rank(memory is None, run) or memory is None:
            raise ObstacleError(error or "another rank has no memory for it")
        return memory

    @classmethod
    def obstacle(cls, model: Classifier, run: Run) -> str | None:
        """Refuses another precision, hooks, and models that change the iteration."""
        if run.precision not in BOUNDS:
            return f"the precision is {run.precision}"
        if run.batch_size is None:
            return "the data does not say how many images a mini-batch has"
        if run.all_reduce is not None:
            run = run._replace(strategy="")
        if onlooker := run.onlooker():
            return onlooker
        return (
            graph.obstacle()
            or obstacles.own_part(
                model, ("forward", "inputs", "targets", "losses", "batch", "draw")
            )
            or obstacles.another_net(model, model.kind, LAYERS_OF[model.kind])
            or obstacles.another_descent(model, run, known=Update._fields)
        )

    def is_current(self) -> bool:
        """Whether the recording still reads what there is.

        A checkpoint brings velocities of its own, and a callback may give parameters other memory,
        or the optimizer another momentum.
        """
        if obstacles.another_descent(self._model, self._run, known=Update._fields):
            return False
        return self._iterations[self._size].reads(self._optimizer) == self._read

    def __call__(self, block: Block, rates: Tensor) -> Tensor:
        """See `Learner`; it does not wait for the device in between."""
        whole = self._iterations[self._size]
        losses = []
        for size, piece in _pieces(self._model, block, rates):
            if size not in self._iterations:
                self._iterations[size] = whole.on(Memory(self._model, self._run.device, size, 1))
            iteration = self._iterations[size]
            launch = self._launch if iteration is whole else iteration
            for part in piece.split(len(iteration.memory.losses)):
                iteration.memory.lay_out(block.images, block.labels, part)
                for _ in range(len(part.rates)):
                    launch()
                losses.append(iteration.memory.losses[: len(part.rates)].clone())
        whole.hand_over()
        self._optimizer.param_groups[0]["lr"] = float(rates[-1])  # for callbacks that read it
        return torch.cat(losses) * self._run.ranks


def _autocast(run: Run) -> AbstractContextManager[Any]:
    """The autocast context of Lightning's precision, since its casts are recorded too."""
    if run.precision == "32-true":
        return nullcontext()
    return torch.autocast(run.device.type, torch.bfloat16, cache_enabled=False)


def _pieces(model: Classifier, block: Block, rates: Tensor) -> Iterator[tuple[int, Piece]]:
    """Yields the consecutive mini-batches of a block that have the same size, with that size.

    At most `AT_ONCE` at a time: the GPU trains on them while the random numbers for the distortion
    of the next ones are drawn.
    """
    device = block.images.device
    shares = 1 / torch.from_numpy(block.totals)
    steps = send(torch.stack([shares, rates.to(shares)]).float(), device)
    k, start = 0, 0
    for size, group in itertools.groupby(block.sizes.tolist()):
        end = k + len(list(group))
        for first in range(k, end, AT_ONCE):
            count = min(AT_ONCE, end - first)
            images = slice(start, start + count * size)
            numbers = model.draw(block, first, first + count)
            if numbers is not None:
                numbers = send(numbers, device).view(count, size, numbers.shape[1])
            order = block.order[images].view(count, size)
            yield size, Piece(order, numbers, *steps[:, first : first + count])
            start = images.stop
        k = end


def _recorded(iteration: Iteration, run: Run) -> Callable[[], None]:
    """Records an iteration; returns a function that replays it, in the same way on all ranks.

    Raises:
        ObstacleError: the iteration cannot be recorded.
        DeviceLostError: the attempt has left the device unusable.
    """
    launches, error = _try([iteration], run)
    if error is None:
        return launches[0]
    if run.all_reduce is None:
        raise ObstacleError(error)
    launches, error = _try([iteration.differentiate, iteration.take_step], run)
    if error is not None:
        raise ObstacleError(error)
    differentiate, take_step = launches

    def take() -> None:
        differentiate()
        iteration.join()
        take_step()

    return take


def _try(
    functions: Sequence[Callable[[], None]], run: Run
) -> tuple[list[Callable[[], None]], str | None]:
    """Records functions; returns the recordings, or why one failed, here or on another rank."""
    launches, error = [], None
    try:
        launches = [graph.record(function, run.device) for function in functions]
    except Exception as failure:  # torch and compilers raise what they like
        error = trust.one_line(failure)
        trust.check_device(run.device, error)
    if _on_any_rank(error is not None, run):
        return [], error or "it fails on another rank"
    return launches, None


def _on_any_rank(mine: bool, run: Run) -> bool:
    if run.all_reduce is None:
        return mine
    count = torch.tensor(float(mine), device=run.device)
    run.all_reduce(count)
    return bool(count)


def _prove(model: Classifier, iteration: Iteration, launch: Callable[[], None], run: Run) -> None:
    """Compares a recorded step with one in float64; all ranks take the same step.

    Raises:
        ObstacleError: the step is wrong, here or on another rank.
    """
    found, bound = errors(model, iteration, launch, run.ranks), BOUNDS[run.precision]
    wrong = [f"{name} by {error:.1e}" for name, error in found.items() if not error <= bound]
    if _on_any_rank(bool(wrong), run):
        raise ObstacleError(f"a recorded step is off, {', '.join(wrong) or 'on another rank'}")


def errors(
    model: Classifier, iteration: Iteration, launch: Callable[[], None], ranks: int = 1
) -> trust.Errors:
    """Relative errors of a step from random images and weights; the weights are restored.

    Args:
        model: the model of the step.
        iteration: its memory has room for one mini-batch or more.
        launch: takes the iteration; called on all ranks, with the same images.
        ranks: number of ranks.
    """
    memory = iteration.memory
    device, size = memory.k.device, memory.labels.shape[1]
    step = proof.random_step(model, size)
    numbers = step.numbers if step.numbers is None else step.numbers.to(device)
    share, rate = (
        torch.full((1,), value, device=device) for value in (1 / size / ranks, proof.RATE)
    )
    order = torch.arange(size, device=device).unsqueeze(0)
    with iteration.undone():
        before = proof.randomise(iteration.parameters)
        for velocity in iteration.velocities:
            velocity.zero_()
        piece = Piece(order, numbers, share, rate)
        memory.lay_out(step.images.to(device), step.labels.to(device), piece)
        launch()
        loss = memory.losses[0] * ranks
        return proof.errors(model, iteration.update, step, loss, before, iteration.parameters)
