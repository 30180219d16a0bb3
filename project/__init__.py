"""What a person runs: `python -m project.fit` and its siblings."""

import os
import sys

from project import errors, streams

# What a notebook sets for its own figures is handed down to its programs, and Matplotlib, which
# torchmetrics imports, takes no backend that is not installed. Files need none.
if "IPython" not in sys.modules:
    os.environ.pop("MPLBACKEND", None)
    sys.excepthook = errors.on_uncaught

streams.settle()
