"""BADJA: tree, clips, score."""

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
    from propagate.benchmarks.badja.clips import load_badja

    return load_badja(data, davis=davis, sequences=sequences or (), resolution=resolution)
