"""`python -m project.export --ckpt_path F --format onnx|pt2|html`: a model that runs by itself."""

# PYTHON_ARGCOMPLETE_OK

from __future__ import annotations

import contextlib
import copy
import importlib.util
import io
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.cli import LightningArgumentParser
from torch import Tensor, nn

from callbacks.files import write_text, written_whole
from models.classifier import Classifier
from models.kernels.conv_pool.composite import dense
from models.layers.conv_pool import ConvPool, PartialConv
from project.errors import OneLineParser, UserError, fail, user_errors
from project.output import file_if_named, file_to_write
from project.page.assemble import assemble
from project.page.contents import Trained, as_in_page, content
from project.program import Program
from project.request import typed
from project.unused import OF_TRAINING

DESCRIPTION = """Writes a trained model as one file that runs without this project: ONNX for any
runtime, or pt2 for torch.export.load. What goes into these is run on test digits and compared with
the model before it is written. Or html, a page to draw digits on that shows how they are read and
needs no network; --ckpt_path more than once puts several models into it."""
EXAMPLES = """examples:
  python -m project.export --ckpt_path last --format onnx
  python -m project.export --ckpt_path last --format html
  python -m project.export --ckpt_path last --format pt2 --output digits.pt2"""

CHECKED = 1000  # test digits
# Largest difference from the model: MOST, or ROUNDING times the model's own rounding error.
MOST, ROUNDING = 1e-5, 10
NEEDED = ("onnx", "onnxscript", "onnxruntime")
ANY_BATCH = {"images": {0: torch.export.Dim("batch")}}

Run = Callable[[Tensor], Sequence[Tensor]]


class ExportCLI(Program):
    """The common command line, with options for a format and a file."""

    # Without effect: a file is exported on the CPU, with ordinary operators.
    unused = (*OF_TRAINING, "trainer", "model.backend", "data.eval_batch_size")

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds --format and --output."""
        super().add_arguments_to_parser(parser)
        formats = [*FORMATS, "html"]
        parser.add_argument("--format", choices=formats, default="onnx", help="Format of the file.")
        parser.add_argument(
            "--output", type=str | None, help="File to write; default: NAME.FORMAT."
        )


class Dense(nn.Sequential):
    """A partial convolution, with its layer's activation and pooling, as ordinary layers.

    Its kernels are dense constants, with zeros for missing connections, since not every runtime can
    scatter weights.

    Args:
        layer: layer to copy.
    """

    def __init__(self, layer: PartialConv) -> None:
        weight, bias, connections, padding = layer.arguments()
        maps = layer.in_channels, len(bias)
        convolution = nn.Conv2d(*maps, layer.kernel_size, padding=padding)
        convolution.weight = nn.Parameter(dense(weight, connections, maps[1], maps[0]))
        convolution.bias = nn.Parameter(bias)
        pool = [nn.Tanh(), nn.AvgPool2d(2), nn.Tanh()] if isinstance(layer, ConvPool) else []
        super().__init__(convolution, *pool)

    def version(self, x: Tensor) -> str:
        """Returns the version as `ConvPool` does: not fused with the next layer."""
        return "composite"


class Portable(nn.Module):
    """A model in the form of a file: its network in ordinary operators, and its probabilities.

    Args:
        model: model to copy.
    """

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.net = copy.deepcopy(model.net).cpu()
        self.probabilities = model.probabilities
        for name, layer in self.net.named_children():
            if isinstance(layer, PartialConv):
                setattr(self.net, name, Dense(layer))
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs (B, 1, H, W) -> outputs of the network, and probabilities (B, classes)."""
        outputs = self.net(images)
        return outputs, self.probabilities(outputs)


def main(args: list[str] | None = None) -> None:
    """Runs the program.

    Args:
        args: command-line arguments; None takes those of the process.
    """
    programs = [ExportCLI("export", words, DESCRIPTION, EXAMPLES) for words in one_each(args)]
    cli = programs[0]
    if cli.ckpt_path is None:
        fail("say which model to export: --ckpt_path last, best, or the path of a checkpoint")
    if not cli.trainer.is_global_zero:
        return  # one rank writes
    with user_errors():
        kind = cli.config.format
        named = file_if_named(cli.config.output)
        path = named or file_to_write(f"{cli.request.name}.{kind}")
        replaced = " (replaced)" if path.is_file() else ""
        if path.exists() and not named:
            raise UserError(f"{path} is there already; name the file to write with --output.")
        if len(programs) > 1 and kind != "html":
            raise UserError(f"a file of {kind} holds one model; name one checkpoint.")
        for program in programs:
            program.datamodule.prepare_data()
            program.datamodule.setup("test")
        write = _write_page if kind == "html" else _write_model
        said = write(programs, path)
        for program in programs:
            program.announce_checkpoint()
        print(f"{path}{replaced}: {said}")


def one_each(args: list[str] | None) -> list[list[str]]:
    """Splits a command line into one for each --ckpt_path, followed by the other arguments."""
    parser = OneLineParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--ckpt_path", action="append")
    chosen, rest = parser.parse_known_args(typed() if args is None else args)
    paths = chosen.ckpt_path
    return [[f"--ckpt_path={path}", *rest] for path in paths] if paths else [rest]


def _write_model(programs: Sequence[Program], path: Path) -> str:
    (cli,) = programs
    inputs = cli.model.inputs(cli.datamodule.test_images[:CHECKED])
    outputs, probabilities = export(cli.model, inputs, cli.config.format, path)
    shape = ", ".join(str(size) for size in inputs.shape[1:])
    return (
        f"images (B, {shape}) from {inputs.min():g} to {inputs.max():g} -> "
        f"outputs, probabilities of {', '.join(map(str, cli.datamodule.digits))}\n"
        f"On {len(inputs):,} test digits it differs from the model by at most "
        f"{outputs:.1e} in outputs, {probabilities:.1e} in probabilities."
    )


def _write_page(programs: Sequence[Program], path: Path) -> str:
    names = told_apart([program.request.name for program in programs])
    page = assemble(content([_trained(*named) for named in zip(names, programs, strict=True)]))
    write_text(path, page)
    return f"a page of {len(page.encode()):,} bytes with {', '.join(names)}; open it in a browser."


def told_apart(names: list[str]) -> list[str]:
    """Returns the names, with a number after those that are repeated.

    >>> told_apart(["mse", "logistic", "mse"])
    ['mse', 'logistic', 'mse (2)']
    """
    counts = [names[: i + 1].count(name) for i, name in enumerate(names)]
    return [name if n == 1 else f"{name} ({n})" for name, n in zip(names, counts, strict=True)]


def _trained(name: str, cli: Program) -> Trained:
    data = cli.datamodule
    assert cli.request.checkpoint is not None
    _check_page(cli.model, data.test_images[:CHECKED])
    return Trained(
        name,
        cli.model,
        Portable(cli.model),
        data.digits,
        data.test_images,
        data.test_labels,
        cli.request.checkpoint.saved_at,
    )


def _check_page(model: Classifier, images: Tensor) -> None:
    """Refuses a model whose answers the page's own arithmetic does not reproduce."""
    plain = as_in_page(model)
    if plain is None or not max(_gaps(*(_ask(m, m.inputs(images)) for m in (plain, model)))) < MOST:
        raise UserError(
            f"{type(model).__name__} is another network, or has other inputs, than a page can "
            "compute: lenet5's, lenet5-1998's and four-nine's; --format pt2 holds any."
        )


def _ask(model: Classifier, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the outputs and probabilities of the model itself."""
    was_training = model.training
    model.eval()
    with torch.no_grad():
        outputs = model(inputs)
    model.train(was_training)
    return outputs, model.probabilities(outputs)


def export(model: Classifier, inputs: Tensor, kind: str, path: Path) -> tuple[float, float]:
    """Exports a model, runs the result, and writes it if it agrees with the model.

    Args:
        model: trained model.
        inputs: (B, 1, H, W), for the comparison; the file takes any B. The first two are the
            exporter's example.
        kind: a key of `FORMATS`.
        path: file to write; an existing one is replaced only by a complete and checked one.

    Returns:
        The largest differences from the model, in outputs and in probabilities.

    Raises:
        UserError: a package is missing, or the file disagrees with the model.
    """
    right = _ask(model, inputs)
    with torch.no_grad():
        roundings = _gaps(Portable(model)(inputs), Portable(model).double()(inputs.double()))
        content, run = FORMATS[kind](Portable(model), inputs[:2].clone())
        gaps = _gaps(right, run(inputs))
    for gap, rounding in zip(gaps, roundings, strict=True):
        if not gap <= max(MOST, ROUNDING * rounding):
            raise UserError(
                f"the {kind} file differs from the model by {gap:.1e}; what {type(model).__name__} "
                "does outside of its net, in forward or a hook, is not in it"
            )
    with written_whole(path) as file:
        file.write(content)
    return gaps


def _gaps(one: Sequence[Tensor], other: Sequence[Tensor]) -> tuple[float, float]:
    outputs, probabilities = (float((a - b).abs().max()) for a, b in zip(one, other, strict=True))
    return outputs, probabilities


def _to_pt2(portable: Portable, inputs: Tensor) -> tuple[bytes, Run]:
    program = torch.export.export(portable, (inputs,), dynamic_shapes=ANY_BATCH)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine
    file = io.BytesIO()
    torch.export.save(program, file)
    content = file.getvalue()
    return content, torch.export.load(io.BytesIO(content)).module()


def _to_onnx(portable: Portable, inputs: Tensor) -> tuple[bytes, Run]:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"ONNX needs {' and '.join(missing)}: pip install -r requirements-export.txt"
        )
    import onnxruntime

    # The exporter prints its progress and warns about its own libraries.
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program: Any = torch.onnx.export(
            portable,
            (inputs,),
            input_names=["images"],
            output_names=["outputs", "probabilities"],
            dynamic_shapes=ANY_BATCH,
            dynamo=True,
            verbose=False,
        )
    for node in program.model.graph:
        node.metadata_props.clear()  # paths of this machine, too
    content: bytes = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> list[Tensor]:
        return [torch.from_numpy(y) for y in session.run(None, {"images": images.numpy()})]

    return content, run


FORMATS: dict[str, Callable[[Portable, Tensor], tuple[bytes, Run]]] = {
    "onnx": _to_onnx,
    "pt2": _to_pt2,
}

if __name__ == "__main__":
    main()
