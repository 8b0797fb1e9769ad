"""DAVIS 2016 and 2017: masks."""

from typing import TYPE_CHECKING, Annotated, Literal

from propagate.benchmarks.options import Folder, Option, Resolution, Sequences

if TYPE_CHECKING:
    from propagate.benchmarks.benchmark import Benchmark


def load(
    data: Folder,
    year: Annotated[Literal["2016", "2017"], Option("2016: one object; 2017: several.")],
    split: Annotated[str, Option("val, train, or all sequences of the folder.", "NAME")] = "val",
    sequences: Sequences = None,
    resolution: Resolution = "480p",
) -> "Benchmark":
    """Masks: DAVIS 2016 and 2017, J and F."""
    from propagate.benchmarks.davis.clips import load_davis

    number: Literal[2016, 2017] = 2016 if year == "2016" else 2017
    return load_davis(data, year=number, split=split, sequences=sequences or (), resolution=resolution)
