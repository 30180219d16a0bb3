"""The programs: `python -m project.fit` and its siblings."""

import os
import sys

from project import errors, streams

# Programs inherit the Matplotlib backend of a notebook that starts them. Matplotlib, which
# torchmetrics imports, refuses one that is not installed, and figures in files need none.
if "IPython" not in sys.modules:
    os.environ.pop("MPLBACKEND", None)
    sys.excepthook = errors.on_uncaught
# Users set it for coverage and debuggers of other code; the kernels need the compiler.
os.environ.pop("NUMBA_DISABLE_JIT", None)
streams.settle()
