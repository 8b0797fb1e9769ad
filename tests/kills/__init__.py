"""Random kills of real runs: `make kills N=200`, or `python -m tests.kills --help`.

A run is killed at a random moment by SIGKILL, SIGTERM or SIGINT; then it is run again. No file under a final name may
be half, nothing may be left behind after the second run, and its results must be those of a run that nobody killed.
"""
