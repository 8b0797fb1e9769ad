"""The commands. What is printed, the progress bar and the exit codes live here and nowhere else."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and exit with its code; see `propagate.app.streams` and `propagate.app.interrupt`."""
    from propagate.app.streams import guard_streams

    guard_streams()
    try:
        from propagate.app.program import app

        app(prog_name="propagate")
    except KeyboardInterrupt:
        sys.exit(130)  # before a command began
