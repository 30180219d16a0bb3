"""`python -m project` lists the programs."""

from __future__ import annotations

import ast
from pathlib import Path

PROGRAMS = ("fit", "evaluate", "predict", "export", "reproduce", "bench", "doctor")


def main() -> None:
    """Prints the first line of each program's docstring."""
    folder = Path(__file__).parent
    for name in PROGRAMS:
        path = folder / f"{name}.py"
        source = path if path.is_file() else folder / name / "__main__.py"
        text = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
        print(text.splitlines()[0].replace("`", ""))
    print("Each explains itself by --help.")


if __name__ == "__main__":
    main()
