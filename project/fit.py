"""`python -m project.fit` trains an experiment, tests it and writes down how it went."""

from __future__ import annotations

import sys

from callbacks import Interrupted
from project.cli import ExperimentCLI
from project.errors import user_errors
from project.table import print_results

DESCRIPTION = """Trains an experiment, tests it and prints the result.

python -m project.fit --config lenet5-original | lenet5-modern | logistic | mse | mse-as-printed"""


def main(args: list[str] | None = None) -> None:
    """Runs the program.

    Args:
        args: command line without the program; None takes that of the process.
    """
    cli = ExperimentCLI("fit", args, DESCRIPTION)
    trainer = cli.trainer
    cli.announce()
    with user_errors():
        try:
            trainer.fit(
                cli.model,
                datamodule=cli.datamodule,
                ckpt_path=cli.ckpt_path,
                weights_only=True,
            )
        except Interrupted as interrupted:
            print(f"Stopped after iteration {interrupted.iteration}.", file=sys.stderr)
            if interrupted.checkpoint:
                print(
                    f"Continue with: python -m project.fit --ckpt_path {interrupted.checkpoint}",
                    file=sys.stderr,
                )
            raise
        trainer.test(cli.model, datamodule=cli.datamodule, verbose=False)
    if trainer.is_global_zero and cli.results.record:
        print_results(cli.results.record, cli.results.folder)


if __name__ == "__main__":
    main()
