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
from torch import Tensor

from callbacks.files import write_text
from data.blocks import BlockLoader, InOrder
from data.images import reading
from data.images.reading import Digit
from project.errors import UserError, fail, user_errors
from project.program import Program

DESCRIPTION = """Labels images of single digits with a trained model. Takes PNG, JPEG, BMP, IDX
files, gzipped or not, and folders; of any size, dark ink on light paper or light on dark. Pictures
are brought into MNIST's shape first; IDX files of 28x28 pixels are taken as they are."""


class PredictCLI(Program):
    """The programs' command line, with images."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the images and where the answers go."""
        super().add_arguments_to_parser(parser)
        parser.add_argument("images", nargs="+", type=str, help="Image files and folders of them.")
        parser.add_argument("--output", type=str | None, help="File to write; else the terminal.")
        parser.add_argument("--format", choices=["csv", "json"], default="csv", help="Of that.")


class Gather(Callback):
    """Collects what all ranks predict, in the order of the images.

    Attributes:
        probabilities: (N, classes), on every rank.
    """

    def __init__(self) -> None:
        self._own: list[Tensor] = []

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any
    ) -> None:
        """Keeps one block's."""
        self._own.append(outputs.cpu())

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Puts the ranks' stretches behind one another."""
        parts: list[Any] = [self._own]
        if trainer.world_size > 1:
            parts = [None] * trainer.world_size
            torch.distributed.all_gather_object(parts, self._own)
        self.probabilities = torch.cat([block for part in parts for block in part])


def main(args: list[str] | None = None) -> None:
    """Runs the program.

    Args:
        args: command line without the program; None takes that of the process.
    """
    cli = PredictCLI("predict", args, DESCRIPTION)
    if cli.ckpt_path is None:
        fail("say which model to use: --ckpt_path runs/NAME/version_N/checkpoints/FILE.ckpt")
    with user_errors():
        digits = reading.read(Path(path) for path in cli.config.images)
        probabilities = predict(cli, digits)
        if cli.trainer.is_global_zero:
            cli.announce_checkpoint()
            classes = cli.datamodule.digits
            text = FORMATS[cli.config.format](answers(digits, probabilities, classes))
            if cli.config.output:
                write_text(Path(cli.config.output), text)
                print(f"{len(digits):,} images, into {cli.config.output}", file=sys.stderr)
            else:
                print(text, end="")


def predict(cli: Program, digits: list[Digit]) -> Tensor:
    """The probabilities (N, classes), shared out over the Trainer's ranks.

    Raises:
        UserError: more ranks than images.
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
    digits: list[Digit], probabilities: Tensor, classes: tuple[int, ...]
) -> list[dict[str, Any]]:
    """A record for each image: its name, the ink found, the label and every class's probability."""
    return [
        {
            "image": digit.name,
            "ink": digit.ink,
            "label": classes[int(row.argmax())],
            "probabilities": {
                str(c): round(p, 6) for c, p in zip(classes, row.tolist(), strict=True)
            },
        }
        for digit, row in zip(digits, probabilities, strict=True)
    ]


def as_csv(records: list[dict[str, Any]]) -> str:
    """A line for each image, a column for each class's probability."""
    text = io.StringIO()
    columns = [f"p{name}" for name in records[0]["probabilities"]]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "ink", "label", *columns])
    for record in records:
        values = (f"{p:.6f}" for p in record["probabilities"].values())
        writer.writerow([record["image"], record["ink"], record["label"], *values])
    return text.getvalue()


def as_json(records: list[dict[str, Any]]) -> str:
    """A list of the records."""
    return json.dumps(records, indent=2) + "\n"


FORMATS = {"csv": as_csv, "json": as_json}

if __name__ == "__main__":
    main()
