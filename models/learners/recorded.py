"""Learning by a CUDA graph: one launch for an iteration of plain descent, which is some forty.

LeNet-5 computes for microseconds on a GPU; launched operator by operator from Python, an iteration
takes as long as Python does. It is recorded once and replayed for every mini-batch of the size that
it was recorded for; those of other sizes run the same operators one by one.

Autocast must not keep its casts of the weights (Lightning's does not): a recording would go on
reading the first ones.

Not yet run on a GPU: without one, the tests see the operators, not the recording.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from models import nets
from models.kernels import doors
from models.layers import conv_pool
from models.learners import door
from models.learners.compiled import LAYERS
from models.learners.learner import Block, Learner, Run

if TYPE_CHECKING:
    from models.classifier import Classifier

INPUTS = ("x", "labels", "share", "rate")
Losses = Callable[[Tensor, Tensor], Tensor]


class RecordingError(RuntimeError):
    """An iteration that cannot be recorded, or whose recording gives other numbers."""


class Recorded(Learner):
    """LeNet-5 with plain descent on a GPU, in float32 or under bfloat16 autocast.

    Raises:
        RecordingError: an iteration cannot be recorded.
    """

    name = "recorded"
    devices = ("cuda",)

    def __init__(self, model: Classifier, run: Run) -> None:
        self._model = model
        self._alone = iteration_of(model)
        x = torch.zeros(run.batch_size or 1, 1, 28, 28, device=run.device)
        labels = torch.zeros(len(x), dtype=torch.int64, device=run.device)
        with conv_pool.compiling():
            if "mixed" not in run.precision:
                conv_pool.compile_ahead(model.net, run.device, gradient=True)
            # Under autocast, if Lightning trains under it: its casts are recorded too.
            with model.trainer.precision_plugin.forward_context():
                self._replay = self._record(x, labels)

    def _record(self, x: Tensor, labels: Tensor) -> Replay:
        try:
            return Replay(self._alone, x, labels)
        except RuntimeError as error:
            raise RecordingError(str(error)) from error

    @classmethod
    def obstacle(cls, model: Classifier, run: Run) -> str | None:
        """Another precision, listeners, or more than the class computes."""
        if run.precision not in ("32-true", "bf16-mixed"):
            return f"the precision is {run.precision}"
        if run.batch_size is None:
            return "the data does not say how many images a mini-batch has"
        if onlooker := run.onlooker():
            return onlooker
        return (
            door.own_part(model, ("forward", "inputs", "losses", "batch"))
            or ("the images are distorted" if any(model.distortion) else None)
            or door.another_net(model, nets.LeNet5, LAYERS)
            or door.another_descent(model, run)
        )

    def __call__(self, block: Block, rates: Tensor) -> Tensor:
        """As `Learner`, without waiting for the device in between."""
        shares = (1 / torch.from_numpy(block.totals)).to(block.images.device, torch.float32)
        rates = rates.to(shares)
        losses = torch.empty_like(shares)
        for k, index in enumerate(block.order.split_with_sizes(block.sizes.tolist())):
            iteration = self._replay if len(index) == self._replay.size else self._alone
            losses[k] = iteration(*self._model.batch(block, index), shares[k], rates[k])
        return losses


class Iteration:
    """Forward, backward and update, for mini-batches of any size.

    Args:
        losses: from inputs (B, ...) and labels (B,) to the loss of each image (B,).
        parameters: what is learnt, updated in place; their `grad` is that of the last iteration.
    """

    def __init__(self, losses: Losses, parameters: list[Tensor]) -> None:
        self.losses = losses
        self.parameters = parameters

    def __call__(self, x: Tensor, labels: Tensor, share: Tensor, rate: Tensor) -> Tensor:
        """Takes one step.

        Args:
            x: (B, ...) inputs.
            labels: (B,) int64.
            share: () weight of each image in the loss.
            rate: () learning rate.

        Returns:
            The loss (), share times the sum over the images.
        """
        loss = self.losses(x, labels).sum() * share
        gradients = torch.autograd.grad(loss, self.parameters)
        with torch.no_grad():
            torch._foreach_add_(self.parameters, torch._foreach_mul(gradients, -rate))
        hand_over(gradients, self.parameters)
        return loss.detach()


def hand_over(gradients: Sequence[Tensor], parameters: Sequence[Tensor]) -> None:
    """Makes the gradients the `grad` of the parameters."""
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient


def iteration_of(model: Classifier) -> Iteration:
    """The one by which a model learns."""
    return Iteration(
        lambda x, labels: model.losses(model.net(x), labels), list(model.net.parameters())
    )


class Replay:
    """An `Iteration` recorded for one size of mini-batch.

    Args:
        iteration: what to record.
        x: (B, ...) some inputs of that size, on the GPU.
        labels: (B,) int64.

    Attributes:
        size: B.

    Raises:
        RuntimeError: it cannot be recorded, or the recording gives other numbers.
    """

    def __init__(self, iteration: Iteration, x: Tensor, labels: Tensor) -> None:
        self.size = len(x)
        self._parameters = iteration.parameters
        share, still = x.new_full((), 1 / len(x)), x.new_zeros(())  # at rate 0 all stays as it is
        # A graph reads where it was recorded.
        self._inputs = tuple(part.clone() for part in (x, labels, share, still))
        with torch.cuda.device(x.device):
            # What torch sets up at a first call must not be recorded.
            side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):
                    iteration(*self._inputs)
            torch.cuda.current_stream().wait_stream(side)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._loss = iteration(*self._inputs)
            self._gradients = [p.grad for p in self._parameters if p.grad is not None]
        expected = iteration(x, labels, share, still)
        if not torch.allclose(self(x, labels, share, still), expected, rtol=1e-4):
            raise RuntimeError("the recorded iteration does not give the loss of the other one")

    def __call__(self, *inputs: Tensor) -> Tensor:
        """As the iteration; the loss () is overwritten by the next call.

        Raises:
            TypeError: an input of another type than the recorded one.
            ValueError: one of another shape or device.
        """
        for name, held, given in zip(INPUTS, self._inputs, inputs, strict=True):
            # copy_ would repeat one image for all.
            doors.check_tensor(name, given, held.dtype, held.shape, held.device)
            held.copy_(given)
        self._graph.replay()
        hand_over(self._gradients, self._parameters)
        return self._loss
