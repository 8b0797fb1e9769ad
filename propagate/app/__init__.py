"""The commands. Printing, progress and exit codes live only here. The topmost layer: nothing imports it."""

from __future__ import annotations

import signal
import sys

_TEXT_OPTIONS = {"-h", "--help", "--version"}  # options with text as their only result


def main() -> None:
    """Run the command line and exit with its code; see `terminal.streams` and `terminal.interrupt`."""
    from propagate.app.terminal.streams import guard_streams

    guard_streams()
    try:
        from propagate.app.program import app

        app(prog_name="propagate")
    except KeyboardInterrupt:
        sys.exit(130)  # before a command began
    except SystemExit as end:
        sys.stdout.flush()
        failure = getattr(sys.stdout, "failure", None)
        if failure and not end.code and _TEXT_OPTIONS & set(sys.argv):
            sys.stderr.write(f"error: The text cannot be written: {failure.strerror}.\n")
            sys.exit(3)
        raise
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # nothing is left to interrupt
