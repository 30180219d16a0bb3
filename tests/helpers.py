"""What several test files share: data, trainings, processes, and how programs refuse."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning
import pytest
import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from data import source
from models.classifier import Classifier
from models.kernels.lenet5.design import LENET5
from models.kernels.sgd import sequential_sgd
from models.learners.compiled import gradient_of
from models.learners.recorded import Recorded
from models.losses import LOSSES

REPOSITORY = Path(__file__).parent.parent

TUNED = yaml.safe_load((REPOSITORY / "project/configs/lenet5-original-tuned.yaml").read_text())[
    "model"
]
"""What makes a LeNet5 the tuned one."""


def write_set(root: Path, *, train: int, test: int) -> dict[str, bytes]:
    """Random images and labels in MNIST's layout; returns the content of the four files."""
    generator = torch.Generator().manual_seed(0)
    folder = source.raw_folder(root)
    folder.mkdir(parents=True)
    content = {}
    for prefix, count in (("train", train), ("t10k", test)):
        images = torch.randint(0, 256, (count, 28, 28), generator=generator, dtype=torch.uint8)
        labels = torch.randint(0, 10, (count,), generator=generator, dtype=torch.uint8)
        content[f"{prefix}-images-idx3-ubyte"] = idx(images)
        content[f"{prefix}-labels-idx1-ubyte"] = idx(labels)
    for name in content:
        (folder / name).write_bytes(content[name])
    return content


def idx(array: Tensor) -> bytes:
    """The array as an IDX file of unsigned bytes."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.dim()]) + sizes + array.numpy().tobytes()


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """A limit on the size of files, in bytes, which meets them as a full disk does."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def is_open(path: str | os.PathLike[str]) -> bool:
    """Whether this process has the file open."""
    opened = list(Path("/proc/self/fd").iterdir())
    return any(file.exists() and file.samefile(path) for file in opened)


def trainer(folder: Path, **options: Any) -> Trainer:
    """One that writes nothing: two epochs on the CPU, unless the options say otherwise."""
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    return Trainer(
        **{
            "max_epochs": 2,
            "accelerator": "cpu",
            "enable_checkpointing": False,
            "default_root_dir": folder,
            **quiet,
            **options,
        }
    )


def fit(module: Callable[[], Any], data: Any, folder: Path, **options: Any) -> tuple[Any, Trainer]:
    """Makes a model with seed 0 and trains it; the options are `trainer`'s."""
    lightning.seed_everything(0, verbose=False)
    model = module()
    run = trainer(folder, **options)
    run.fit(model, data)
    return model, run


class Anywhere(Recorded):
    """Records on a CPU too, where a recording is a function that is called."""

    devices = ("cpu", "cuda")


def of_a_gpu(kind: type[Classifier]) -> type[Classifier]:
    """A model that takes the way of a GPU."""
    return type(kind.__name__, (kind,), {"learners": (Anywhere,)})


class Curve(Callback):
    """Keeps the losses of a training, of every iteration."""

    def __init__(self) -> None:
        self.losses: list[Tensor] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keeps those of a block."""
        self.losses.append(outputs["losses"])


class StopAfter(Callback):
    """Saves at the end of a block and stops there, as an interruption does."""

    def __init__(self, iteration: int, path: Path) -> None:
        self.iteration, self.path = iteration, path

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Stops behind the iteration."""
        if trainer.global_step >= self.iteration:
            trainer.save_checkpoint(self.path)
            raise SystemExit


def compiled_gradient(net: Any) -> Any:
    """Of a net that is exactly `nets.LeNet5`."""
    return gradient_of(SimpleNamespace(net=net, design=LENET5))


def assert_same_weights(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    """Bit for bit, by name."""
    assert one.keys() == other.keys()
    for name, weight in one.items():
        assert torch.equal(weight, other[name]), name


def refusal(
    capsys: pytest.CaptureFixture[str], main: Callable[[list[str]], None], *arguments: str
) -> str:
    """The one line of standard error with which a program refuses its arguments, by exit code 2."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


def python(
    *words: str, folder: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs Python in a process of its own that finds the packages, and waits for its end."""
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)} | environment,
        capture_output=True,
        text=True,
    )


def loaded_by(statement: str) -> set[str]:
    """The modules that a fresh Python loads for a statement."""
    done = python("-c", f"{statement}\nimport sys\nprint(*sys.modules)")
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@contextmanager
def threads_of_torch(count: int) -> Iterator[None]:
    """Lets torch, and the kernels with it, use so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def free_port() -> int:
    """A port at which nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


def block_tensors(
    seed: int,
    batch: int,
    in_channels: int,
    height: int,
    width: int,
    pairs: Tensor,
    out_channels: int,
    kernel_size: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """A convolutional block's x, weight and bias in float64, scaled as a network's would be."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    scale = kernel_size * (len(pairs) / out_channels) ** 0.5
    weight = random(len(pairs), kernel_size, kernel_size) / scale
    return random(batch, in_channels, height, width), weight, random(out_channels)


def output_and_gradients(
    function: Callable[..., Tensor], inputs: Any, *rest: Any
) -> tuple[Tensor, ...]:
    """What a function of x, weight and bias gives, and its gradient at each of them."""
    inputs = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    output = function(*inputs, *rest)
    # All positive: sums that cancel would measure float32, not the kernel.
    direction = torch.linspace(0.5, 1.5, output.numel()).to(output).view(output.shape)
    return output, *torch.autograd.grad((output * direction).sum(), inputs)


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """The norm of their difference, as a share of what is expected."""
    return ((actual - expected).norm() / expected.norm().clamp(min=1e-30)).item()


def assert_block_close(
    actual: Any, expected: Any, value: float = 1e-5, gradient: float = 5e-5
) -> None:
    """Compares two answers of `output_and_gradients`, by name."""
    for name, a, e in zip(("output", "x", "weight", "bias"), actual, expected, strict=True):
        assert a.shape == e.shape, name
        assert relative_error(a, e) < (value if name == "output" else gradient), name


def linear_problem(
    seed: int,
    *,
    count: int = 60,
    size: int = 784,
    runs: int = 1,
    iterations: int = 100,
    dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, ...]:
    """Random digits of a kind: four pixels in five are black. Weights as nn.Linear draws them."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, size), generator=generator, dtype=torch.uint8)
    images *= torch.rand(count, size, generator=generator) > 0.8
    labels = 2 * torch.randint(0, 2, (count,), generator=generator) - 1
    order = torch.randint(0, count, (runs, iterations), generator=generator)
    weight, bias = (
        (2 * torch.rand(*shape, dtype=dtype, generator=generator) - 1) / size**0.5
        for shape in ((runs, size), (runs,))
    )
    return images, labels, order, weight, bias


def descend(backend: str, problem: Any, lr: Any, loss: str, scale: float) -> dict[str, Tensor]:
    """What `sequential_sgd` makes of a `linear_problem`, which stays as it is."""
    images, labels, order, weight, bias = problem
    weight, bias = weight.clone(), bias.clone()
    losses = sequential_sgd(
        images, labels, order, weight, bias, lr, LOSSES[loss], scale=scale, backend=backend
    )
    return {"weight": weight, "bias": bias, "losses": losses}
