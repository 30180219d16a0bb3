"""`python -m project.evaluate --ckpt_path F` tests a checkpoint."""

# PYTHON_ARGCOMPLETE_OK

from __future__ import annotations

from lightning.pytorch.cli import LightningArgumentParser

from callbacks.files import write_json
from project.errors import fail, user_errors
from project.output import file_if_named
from project.program import Program
from project.table import print_classes, print_results
from project.unused import OF_TRAINING

EXAMPLES = """examples:
  python -m project.evaluate --ckpt_path last
  python -m project.evaluate --ckpt_path best --name lenet5-validated --json test.json"""
DESCRIPTION = "Tests a checkpoint on the test images of its experiment. Needs only --ckpt_path F."


class EvaluateCLI(Program):
    """The common command line, with an option for a file of the record."""

    unused = (*OF_TRAINING, "trainer.limit_predict_batches")

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds --json."""
        super().add_arguments_to_parser(parser)
        parser.add_argument("--json", type=str | None, help="File to write the record into, too.")


def main(args: list[str] | None = None) -> None:
    """Runs the program.

    Args:
        args: command-line arguments; None takes those of the process.
    """
    cli = EvaluateCLI("evaluate", args, DESCRIPTION, EXAMPLES)
    if cli.ckpt_path is None:
        fail("say which checkpoint to test: --ckpt_path last, best, or the path of a checkpoint")
    with user_errors():
        file = file_if_named(cli.config.json)
        cli.trainer.test(cli.model, datamodule=cli.datamodule, verbose=False)
        record = cli.results.record
        if record is None:
            fail("nothing was tested: --trainer.limit_test_batches leaves no images.")
        if not cli.trainer.is_global_zero:
            return
        cli.announce_checkpoint()
        print_results(record, folder=None)
        print_classes(record["test"]["confusion"], cli.datamodule.digits)
        if file:
            write_json(file, record)


if __name__ == "__main__":
    main()
