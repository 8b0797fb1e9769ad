"""The commands. What is printed, the progress bar and the exit codes live here and nowhere else."""

from __future__ import annotations


def main() -> None:
    """Run the command line and exit with its code."""
    from propagate.app.program import app

    app(prog_name="propagate")
