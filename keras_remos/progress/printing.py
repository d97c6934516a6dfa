"""Lines on stderr."""

import contextlib
import sys


def print_line(line: str) -> None:
    """Prints a line on stderr, if there is one and it takes it: a log that nobody reads any more ends no training."""
    if sys.stderr is not None:  # programs without a console have none, and `print` would take stdout
        with contextlib.suppress(OSError):
            print(line, file=sys.stderr, flush=True)
