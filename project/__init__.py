"""What a person runs: `python -m project.fit` and its siblings."""

import os
import sys

from project import errors, streams

# What a notebook sets for its own figures is handed down to its programs, and Matplotlib, which
# torchmetrics imports, takes no backend that is not installed. Files need none.
if "IPython" not in sys.modules:
    os.environ.pop("MPLBACKEND", None)
    sys.excepthook = errors.on_uncaught
# Set for coverage and debuggers of what Python can run, too; the kernels it cannot.
os.environ.pop("NUMBA_DISABLE_JIT", None)
streams.settle()
