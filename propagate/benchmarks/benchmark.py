"""The contract between a data set, the runner and the report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from jaxtyping import Float64, UInt8
from numpy import ndarray

from propagate.types import Frame, Label, Prediction

Write = Callable[[Frame, Prediction], None]


@dataclass(frozen=True)
class Clip:
    """A sequence of a data set. Its results lie in a folder of its name; the label of the first picture is given."""

    name: str
    pictures: tuple[Path, ...]


@dataclass(frozen=True, eq=False)
class Curve:
    """Scores per frame of one target in one clip."""

    clip: str  # name of the clip
    target: str  # an object id ("1"), or "joints"
    frames: tuple[int, ...]  # positions in the clip of the scored frames, ascending; 0 is the given frame
    # metric ("J", "F", "PCK@0.2") -> one value in [0, 1] per scored frame; NaN where nothing counted
    values: Mapping[str, Float64[ndarray, " t"]]


@dataclass(frozen=True, eq=False)
class Table:
    """The content of a CSV file. Cells are text, already rounded."""

    file: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, eq=False)
class Scores:
    """The scores of one method's results."""

    totals: Mapping[str, float]  # metric -> share in [0, 1] over the whole data set; the first metric ranks methods
    clips: Mapping[str, Mapping[str, float]]  # clip -> metric -> value, for each clip that could be scored
    curves: tuple[Curve, ...]  # scores per frame of each clip and target
    tables: tuple[Table, ...]  # the official files of the data set, and others
    # clip -> sentences about faults in its results. The clip may be scored all the same.
    problems: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()  # sentences about all results, such as coverage


@dataclass(frozen=True)
class Published:
    """Scores from a paper."""

    method: str  # name in the paper
    totals: Mapping[str, float]  # metric -> share in [0, 1], with the names of `Scores.totals`
    source: str  # paper or repository
    command: str = ""  # how to run the method here; empty where it cannot be run


@runtime_checkable
class Benchmark(Protocol):
    """A data set with its protocol. Implementations are frozen dataclasses that can be pickled."""

    @property
    def name(self) -> str:
        """Name for files and commands ("davis-2017")."""

    @property
    def title(self) -> str:
        """Data, split and protocol in one line ("DAVIS-2017 val, semi-supervised")."""

    @property
    def clips(self) -> tuple[Clip, ...]:
        """Clips to run, in the order of the data set."""

    @property
    def published(self) -> tuple[Published, ...]:
        """Published scores on the same data and protocol; empty for a subset."""

    @property
    def remarks(self) -> tuple[str, ...]:
        """Sentences to read before comparing ("A subset: 2 of 30 clips")."""

    @property
    def settings(self) -> tuple[str, ...]:
        """Settings of the protocol, in the form of `--set`. Those of the user override them."""

    @property
    def difference_colors(self) -> Mapping[str, tuple[int, int, int]]:
        """Meaning -> RGB, for the third picture of `compare`."""

    def frames(self, clip: Clip) -> Iterable[Frame]:
        """Yield the clip's frames as the protocol shows them. `index` is the position in the clip."""

    def label(self, clip: Clip) -> Label:
        """Return the given label of frame 0 as the protocol shows it."""

    def writer(self, clip: Clip, folder: Path) -> AbstractContextManager[Write]:
        """Open a writer of the clip's predictions. `folder` exists and belongs to the clip alone."""

    def score(self, results: Path) -> Scores:
        """Score `results/<clip>/...`, made by any program. Missing or wrong files become problems."""

    def compare(self, clip: Clip, results: Path, frame: int) -> tuple[UInt8[ndarray, "h w 3"], ...]:
        """Return RGB pictures of a frame, of one size: the prediction, the truth and their difference."""
