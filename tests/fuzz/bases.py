"""The valid inputs of all kinds, and a process that is ready to be forked."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path

from tests.fuzz.kinds import KINDS
from tests.fuzz.variant import Variant

# imported by commands when they need them: once here, and not in every worker
_LATER = (
    "propagate.app.running.run",
    "propagate.app.evaluate.evaluation",
    "propagate.app.match.matches",
    "propagate.app.running.inputs",
    "propagate.benchmarks.badja.clips",
    "propagate.benchmarks.davis.clips",
    "propagate.benchmarks.jhmdb.clips",
    "propagate.benchmarks.report.plots",
    "propagate.benchmarks.report.report",
    "propagate.benchmarks.running.sweep",
    "propagate.features.adm.adm",
    "propagate.features.stable_diffusion.cleandift",
    "propagate.features.compact.compact",
    "propagate.features.stable_diffusion.hyperfeatures",
    "propagate.features.learned_prompts.prompt_attention",
    "propagate.features.stable_diffusion.dift",
    "propagate.features.vit.vit",
    "decord",
    "matplotlib.backends.backend_agg",
    "transformers",
)


def make_variants(kinds: Sequence[str], root: Path) -> dict[str, list[Variant]]:
    """Write the inputs of these kinds below a folder, and check that each is read without an error.

    Raises:
        RuntimeError: a valid input is refused.
    """
    for name in _LATER:
        try:
            import_module(name)
        except ImportError:  # decord is optional
            continue
    # in a process of its own: where torch has computed with threads, a fork would wait for them for ever
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_make, args=(theirs, kinds, root))
    process.start()
    theirs.close()
    try:
        found: dict[str, list[Variant]] | Exception = ours.recv()
    finally:
        process.join()
    if isinstance(found, Exception):
        raise found
    return found


def _make(line: Connection, kinds: Sequence[str], root: Path) -> None:
    found = {}
    try:
        with _silence():
            for kind in kinds:
                (root / kind).mkdir(parents=True)
                found[kind] = list(KINDS[kind].make(root / kind))
    except Exception as error:
        line.send(RuntimeError(f"{type(error).__name__}: {error}"))
        raise
    line.send(found)


@contextmanager
def _silence() -> Iterator[None]:
    """Hide the output that encoders and other libraries print without Python."""
    sys.stderr.flush()
    saved, devnull = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(devnull)
