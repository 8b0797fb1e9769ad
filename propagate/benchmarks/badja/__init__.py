"""BADJA: joints of animals."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from propagate.benchmarks.options import Folder, Option, Resolution, Sequences

if TYPE_CHECKING:
    from propagate.benchmarks.benchmark import Benchmark


def load(
    data: Folder,
    davis: Annotated[Path, Option("Folder of DAVIS, with the frames and masks.", "DIR")],
    sequences: Sequences = None,
    resolution: Resolution = "480p",
) -> "Benchmark":
    """Animals' joints: BADJA, PCK."""
    from propagate.benchmarks.badja.clips import Badja
    from propagate.benchmarks.badja.tree import read_badja

    return Badja(read_badja(data, davis, resolution, sequences or ()), resolution)
