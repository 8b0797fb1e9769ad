"""What a user chooses when a data set is loaded, as parameters of its `load` function."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated


@dataclass(frozen=True)
class Option:
    """Describes a parameter: `Annotated[int, Option("Test split.", min=1)]`.

    Attributes:
        help: one short sentence.
        metavar: placeholder of the value.
        name: option on the command line; empty: made from the parameter's name.
        min, max: range of a number.
    """

    help: str
    metavar: str | None = None
    name: str = ""
    min: int | None = None
    max: int | None = None


Folder = Annotated[Path, Option("Folder of the data set.", "DIR")]
Sequences = Annotated[list[str] | None, Option("Only this sequence; repeatable.", "NAME", "--sequence")]
Resolution = Annotated[str, Option("Folder of frames and masks of one size.", "NAME")]
