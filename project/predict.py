"""`python -m project.predict --ckpt_path F IMAGES...` says which digit each image shows."""

# PYTHON_ARGCOMPLETE_OK

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser
from PIL import Image
from torch import Tensor

from callbacks.files import write_text, written_whole
from data import MNISTDataModule
from data.blocks import BlockLoader, InOrder
from data.images import reading
from data.images.reading import Digit
from data.paths import expanded
from project.errors import UserError, fail, fail_in_part, user_errors
from project.output import file_if_named, folder_to_fill
from project.program import Program
from project.unused import OF_TRAINING

DESCRIPTION = """Labels images of digits with a trained model. Takes photographs and scans in PNG,
JPEG, GIF, TIFF, WebP, BMP, and arrays in IDX, .npy and .npz, gzipped or not, and folders; of any
size, dark ink on light paper or light on dark, in uneven light, on ruled paper, in boxes. Pictures
are brought into MNIST's shape first; arrays of 28x28 pixels are taken as they are. What cannot be
told is labelled unsure, with the reason. Exit code 1 if some of the files cannot be read."""

# An image whose likeliest digit is below SURE may be no digit: docs/predict.md has the figures.
UNSURE, SURE = "unsure", 0.85
UNLIKE = "unlike any digit"

# Options without effect, since exactly the named images are used.
UNUSED = (
    *("data.root", "data.verify", "trainer.fast_dev_run"),
    *("trainer.limit_test_batches", "trainer.limit_predict_batches"),
)

EXAMPLES = """examples:
  python -m project.predict --ckpt_path last digit.png
  python -m project.predict --ckpt_path last docs/digits --format json --output answers.json"""


class PredictCLI(Program):
    """The common command line, with images."""

    unused = (*OF_TRAINING, *UNUSED)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the images and the options for the answers."""
        super().add_arguments_to_parser(parser)
        parser.add_argument("images", nargs="+", type=str, help="Image files and folders of them.")
        parser.add_argument(
            "--several", action="store_true", help="Read all digits of a picture, in their order."
        )
        parser.add_argument("--show", type=str | None, help="Folder for what the network saw.")
        parser.add_argument("--output", type=str | None, help="File to write; else the terminal.")
        parser.add_argument(
            "--format", choices=["csv", "json"], default="csv", help="Format of the output."
        )


class Gather(Callback):
    """Gathers the predictions of all ranks in the order of the images.

    Attributes:
        probabilities: (N, classes), on every rank.
    """

    def __init__(self) -> None:
        self._own: list[Tensor] = []

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any
    ) -> None:
        """Keeps the probabilities of one block."""
        self._own.append(outputs.cpu())

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Concatenates the parts of the ranks."""
        parts: list[Any] = [self._own]
        if trainer.world_size > 1:
            parts = [None] * trainer.world_size
            torch.distributed.all_gather_object(parts, self._own)
        self.probabilities = torch.cat([block for part in parts for block in part])


def main(args: list[str] | None = None) -> None:
    """Runs the program.

    Args:
        args: command-line arguments; None takes those of the process.
    """
    cli = PredictCLI("predict", args, DESCRIPTION, EXAMPLES)
    if cli.ckpt_path is None:
        fail("say which model to use: --ckpt_path last, best, or the path of a checkpoint")
    with user_errors():
        folder = folder_to_fill(cli.config.show) if cli.config.show is not None else None
        file = file_if_named(cli.config.output)
        content = reading.read(
            map(expanded, cli.config.images), several=cli.config.several, size=cli.datamodule.size
        )
        if not content.digits:
            raise content.refused[0]
        probabilities = predict(cli, content.digits)
        if cli.trainer.is_global_zero:
            cli.announce_checkpoint()
            data = cli.datamodule
            # Known for MNIST's ten digits only; other data would need another threshold.
            least = SURE if type(data) is MNISTDataModule and data.verify else 0
            records = answers(content.digits, probabilities, data.digits, least)
            if folder:
                show(content.digits, folder)
            write(FORMATS[cli.config.format](records), len(content.digits), file)
            if content.refused:
                fail_in_part(content.refused)


def write(text: str, count: int, file: Path | None) -> None:
    """Writes the answers for `count` images to a file, or prints them without one."""
    if file:
        write_text(file, text)
        print(f"{count:,} images, into {file}", file=sys.stderr)
    else:
        print(text, end="")


def show(digits: list[Digit], folder: Path) -> None:
    """Writes the network's input for each digit, enlarged ten times and numbered in order."""
    for n, digit in enumerate(digits, 1):
        large = Image.fromarray(digit.pixels.numpy()).resize((280, 280), Image.Resampling.NEAREST)
        with written_whole(folder / f"{n:04}-{Path(digit.name).name}.png") as file:
            large.save(file, "PNG")


def predict(cli: Program, digits: list[Digit]) -> Tensor:
    """Computes the probabilities (N, classes), distributed over the Trainer's ranks.

    Raises:
        UserError: there are more ranks than images.
    """
    trainer = cli.trainer
    if len(digits) < trainer.world_size:
        raise UserError(f"{trainer.world_size} ranks cannot share {len(digits)} images; use fewer.")
    order = InOrder(torch.arange(len(digits)).tensor_split(trainer.world_size)[trainer.global_rank])
    device = trainer.strategy.root_device
    pixels = torch.stack([digit.pixels for digit in digits]).to(device)
    unknown = torch.zeros(len(digits), dtype=torch.long, device=device)
    loader = BlockLoader(pixels, unknown, order, batch_size=cli.datamodule.eval_batch_size)
    gather = Gather()
    trainer.callbacks.append(gather)  # type: ignore[attr-defined]
    trainer.predict(cli.model, dataloaders=loader, return_predictions=False)
    return gather.probabilities


def answers(
    digits: list[Digit], probabilities: Tensor, classes: tuple[int, ...], least: float
) -> list[dict[str, Any]]:
    """Returns a record for each image."""
    return [
        record(digit, dict(zip(map(str, classes), row.tolist(), strict=True)), least)
        for digit, row in zip(digits, probabilities, strict=True)
    ]


def record(digit: Digit, probabilities: dict[str, float], least: float) -> dict[str, Any]:
    """Returns an image's name, ink, label, probability of each class, and reason for doubt.

    Without ink there are no probabilities; if all of them are below `least`, the image is unlike
    any digit.
    """
    likeliest = max(probabilities, key=lambda name: probabilities[name])
    reason = digit.reason
    if not reason and probabilities[likeliest] < least:
        reason = UNLIKE
    shown = {name: round(p, 6) if digit.pixels.any() else None for name, p in probabilities.items()}
    return {
        "image": digit.name,
        "ink": digit.ink,
        "label": UNSURE if reason else int(likeliest),
        "probabilities": shown,
        "reason": reason,
    }


def as_csv(records: list[dict[str, Any]]) -> str:
    """Formats a line for each image, with a column for each class's probability, reason last."""
    text = io.StringIO()
    columns = [f"p{name}" for name in records[0]["probabilities"]]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "ink", "label", *columns, "reason"])
    for record in records:
        values = ("" if p is None else f"{p:.6f}" for p in record["probabilities"].values())
        first = (record[key] for key in ("image", "ink", "label"))
        writer.writerow([*first, *values, record["reason"]])
    return text.getvalue()


def as_json(records: list[dict[str, Any]]) -> str:
    """Formats a list of the records."""
    return json.dumps(records, indent=2) + "\n"


FORMATS = {"csv": as_csv, "json": as_json}

if __name__ == "__main__":
    main()
