"""Command-line options of data sets, as parameters of their `load` functions."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated


@dataclass(frozen=True)
class Option:
    """Describes a parameter: `Annotated[int, Option("Test split.", min=1)]`."""

    help: str  # short sentence
    metavar: str | None = None  # placeholder of the value
    name: str = ""  # option on the command line; empty: from the parameter's name
    # min, max: range of a number
    min: int | None = None
    max: int | None = None


Folder = Annotated[Path, Option("Folder of the data set.", "DIR")]
Sequences = Annotated[list[str] | None, Option("Only this sequence; repeatable.", "NAME", "--sequence")]
Resolution = Annotated[str, Option("Folder of frames and masks of one size.", "NAME")]
