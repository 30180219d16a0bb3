"""`python -m project.page FILE...` makes pages anew: the networks in them, with today's sources."""

from __future__ import annotations

from pathlib import Path

from callbacks.files import write_text
from data.paths import expanded
from project.errors import OneLineParser, UserError, file_content, user_errors
from project.page.assemble import assemble, content_of


def main(args: list[str] | None = None) -> None:
    """Runs the program.

    Args:
        args: command-line arguments; None takes those of the process.
    """
    parser = OneLineParser(prog="python -m project.page", description=__doc__)
    parser.add_argument(
        "pages", nargs="+", type=expanded, metavar="FILE", help="Written by export."
    )
    with user_errors():
        pages = {path: assemble(content_of(_read(path))) for path in parser.parse_args(args).pages}
        for path, page in pages.items():
            write_text(path, page)
            print(path)


def _read(path: Path) -> str:
    try:
        return file_content(path).decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no page of project.export.") from error


if __name__ == "__main__":
    main()
