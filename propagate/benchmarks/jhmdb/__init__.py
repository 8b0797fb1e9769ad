"""JHMDB: joints of people."""

from typing import TYPE_CHECKING, Annotated, Literal

from propagate.benchmarks.options import Folder, Option, Sequences

if TYPE_CHECKING:
    from propagate.benchmarks.benchmark import Benchmark


def load(
    data: Folder,
    protocol: Annotated[
        Literal["videowalk", "strict"], Option("videowalk: as published scores; strict: lost joints are wrong.")
    ],
    split: Annotated[int, Option("Test split.", "N", min=1, max=3)] = 1,
    sequences: Sequences = None,
) -> "Benchmark":
    """Human poses: JHMDB, PCK."""
    from propagate.benchmarks.jhmdb.clips import Jhmdb
    from propagate.benchmarks.jhmdb.tree import read_jhmdb

    return Jhmdb(read_jhmdb(data, split, sequences or ()), split, protocol, subset=bool(sequences))
