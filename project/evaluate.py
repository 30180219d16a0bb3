"""`python -m project.evaluate --ckpt_path F` tests a checkpoint."""

from __future__ import annotations

from project.cli import ExperimentCLI
from project.errors import fail, user_errors
from project.table import print_results

DESCRIPTION = "Tests a checkpoint on the test images of its experiment. Needs only --ckpt_path F."


def main(args: list[str] | None = None) -> None:
    """Runs the program.

    Args:
        args: command line without the program; None takes that of the process.
    """
    cli = ExperimentCLI("evaluate", args, DESCRIPTION, records=False)
    if cli.ckpt_path is None:
        fail("say which checkpoint to test: --ckpt_path runs/NAME/version_N/checkpoints/FILE.ckpt")
    with user_errors():
        cli.trainer.test(cli.model, datamodule=cli.datamodule, verbose=False)
    if cli.trainer.is_global_zero and cli.results.record:
        print_results(cli.results.record, folder=None)


if __name__ == "__main__":
    main()
