"""Trains a net as a GPU does, with its kernels in Triton's interpreter, and compares.

    TRITON_INTERPRET=1 python tests/interpreted.py LEARNER NET RANKS FOLDER [ITERATIONS]

The recording's place is taken by calls of what it would hold. What is expected are the losses and
weights of the compiled learner of the CPU, on one rank. Prints the largest differences.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from helpers import TUNED, Curve, fit, write_set
from triton.runtime.interpreter import interpreter_builder

from data import MNISTDataModule
from models import nets
from models.kernels import trust
from models.kernels.conv_pool import cuda, dispatch, operator
from models.learners import graph
from models.learners.fused import Fused
from models.learners.recorded import Recorded
from models.lenet import LeNet5
from models.lenet1998 import LeNet1998

ITERATIONS = 20
BLOCK = 2048
"""Pixels of a program: the interpreter takes as long for many as for few."""

NETS = {
    "original": LeNet5,
    "sparse": LeNet5,  # each map of its C3 sees one, so that the interpreter has less to do
    "modern": partial(LeNet5, "modern"),
    "tuned": partial(LeNet5, **TUNED),
    "1998": LeNet1998,
}


class RecordedAnywhere(Recorded):
    devices = ("cpu",)


class FusedAnywhere(Fused):
    devices = ("cpu",)


LEARNERS = {kind.name: kind for kind in (RecordedAnywhere, FusedAnywhere)}


def on_a_gpu(learner):
    """Lets the CPU's tensors take the way of a GPU's."""
    # It would check each sum and product of integers, which is a third of its time.
    interpreter_builder.options = replace(interpreter_builder.options, sanitize_overflow=False)
    real = cuda.gradient.backward.run
    launched = []

    def counted(*args, **kwargs):
        launched.append(1)
        return real(*args, **kwargs)

    def choose(backend, device, dtype, *_):
        return "cuda" if dtype == torch.float32 else "composite"

    def fused(*args):
        return operator._Eager.apply(*args)[0]

    cuda.gradient.backward.run = counted
    graph.record = lambda function, device: function
    cuda.BLOCK = BLOCK
    operator._kernels = lambda x: cuda
    dispatch.choose = choose
    dispatch.CONV_POOL["cuda"] = fused
    dispatch.compile_ahead = lambda *args, **kwargs: None
    # Of 37 images; the recorded iteration is proved all the same.
    trust.find_obstacle = lambda kernel, device, proving: None
    LeNet5.learners = LeNet1998.learners = (LEARNERS[learner],)
    return launched


def trained(name, root, folder, **options):
    """Model, losses and Trainer of an epoch at most."""
    curve = Curve()
    data = MNISTDataModule(str(root), batch_size=6, block_size=4, verify=False)
    options = {"max_epochs": 1, "callbacks": [curve], **options}
    model, run = fit(NETS[name], data, folder, **options)
    return model, torch.cat(curve.losses), run


def largest_difference(actual, expected):
    """Of tensors that are close, of an absolute 1e-4 or that share of what is expected."""
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
    return float((actual - expected).abs().max())


def main(learner, name, ranks, folder, iterations=ITERATIONS):
    """Compares."""
    length = {"max_steps": int(iterations)}
    folder = Path(folder)
    root = folder / "data"
    if name == "sparse":
        nets.C3_TABLES["original"] = tuple((m % 6,) for m in range(16))
    if not root.exists():
        write_set(root, train=130, test=10)
    expected, losses, _ = trained(name, root, folder, **length)
    assert expected.learner == "compiled"
    launched = on_a_gpu(learner)
    spread = {"devices": 2, "strategy": "ddp"} if ranks == "2" else {}
    model, ours, run = trained(name, root, folder, **length, **spread)
    assert (model.learner, run.world_size) == (learner, int(ranks)), model.why_not_faster
    # Of two blocks in each iteration, and in the one that proves it; 1998 has none.
    assert len(launched) == (0 if name == "1998" else 2 * (int(iterations) + 1))
    weights = model.state_dict()
    of_losses = largest_difference(ours, losses)
    of_weights = max(largest_difference(weights[k], w) for k, w in expected.state_dict().items())
    print(f"losses within {of_losses:.1e}, weights within {of_weights:.1e}")


if __name__ == "__main__":
    main(*sys.argv[1:])
