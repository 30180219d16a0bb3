"""`python -m project.bench`: speed against the published loops, as ratios in one run."""

from __future__ import annotations

import argparse
import logging

from callbacks.files import write_rows
from project import processes
from project.bench import fit
from project.bench.measure import machine, rounded
from project.bench.questions import QUESTIONS, Question, Rows
from project.drawing import default_style
from project.errors import OneLineParser, UserError, user_errors
from project.output import file_if_named
from project.precision import in_float32
from project.quiet import quieten
from project.text_table import facts
from project.threads import limit_threads

DESCRIPTION = """fit (the default) times project.fit against the published loops and what else one
would write; iteration takes one iteration of LeNet-5 apart, on one CPU thread; kernel times the
fused convolutional blocks against their reference; race trains LeNet-5 until 98.64 and 99 % of the
test images are right, which takes some minutes a seed; scaling runs project.fit on 1, 2 and 4 CPU
ranks. All in turns, on this machine; where it has a GPU, fit, kernel and race run on the CPU and on
the GPU, and compare what ran on the same."""

OPTIONS_OF = {
    "only": ("fit",),
    "c3": ("iteration", "race"),
    "batches": ("iteration", "kernel", "scaling"),
    "png": tuple(name for name, question in QUESTIONS.items() if question.draw),
}
"""The questions that an option applies to, if not to all of them."""


def main(args: list[str] | None = None) -> None:
    """Runs the program.

    Args:
        args: command-line arguments; None takes those of the process.
    """
    parser = OneLineParser(prog="python -m project.bench", description=DESCRIPTION)
    parser.add_argument("question", nargs="?", choices=QUESTIONS, default="fit")
    parser.add_argument("--json", metavar="FILE", help="write all raw values there too")
    parser.add_argument("--png", metavar="FILE", help="fit, race: draw the figure there")
    parser.add_argument("--root", help="folder that holds MNIST/raw (default: MNIST_ROOT)")
    parser.add_argument(
        "--repeats", type=int, default=5, help="slices or seeds of each (default: 5)"
    )
    parser.add_argument(
        "--only", choices=fit.RACES, action="append", help="fit: this one; may be repeated"
    )
    parser.add_argument(
        "--c3",
        choices=["original", "modern"],
        help="iteration, race: which LeNet-5 (default: original)",
    )
    parser.add_argument("--batches", type=int, nargs="+", help="all but fit and race: batch sizes")
    options = parser.parse_args(args)
    if options.repeats < 1:
        parser.error("--repeats must be 1 or more")
    if min(options.batches or [1]) < 1:
        parser.error("--batches must be 1 or more")
    for name, questions in OPTIONS_OF.items():
        if getattr(options, name) is not None and options.question not in questions:
            parser.error(f"--{name} is for {' and '.join(questions)}, not for {options.question}")
    options.c3 = options.c3 or "original"
    question = QUESTIONS[options.question]
    with user_errors():
        processes.settle()
        limit_threads()
        if max(processes.ranks() or 1, processes.srun_tasks()) > 1:
            raise UserError("others at work would change the times; start project.bench alone.")
        in_float32()
        file, figure = map(file_if_named, (options.json, options.png))
        record = {
            "question": options.question,
            "title": question.title.format(**vars(options)),
            "machine": machine(),
            "rows": rounded(_measured(question, options)),
        }
        question.table(record).show()
        if file:
            write_rows(file, record)
        if figure and question.draw:
            with user_errors(Exception), default_style():
                question.draw(record["rows"], figure)
        print(facts(record["machine"]))


def _measured(question: Question, options: argparse.Namespace) -> Rows:
    """What a question finds, without what its Trainers log between the lines of the bench."""
    quieten()
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        return question.run(options)
    finally:
        logger.setLevel(level)


if __name__ == "__main__":
    main()
