"""What a data set is to the runner and to the report, and what a score is."""

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
    """One sequence of a data set.

    Attributes:
        name: as the data set calls it; also the name of the folder of its results.
        pictures: its frames in order; the first one is the frame whose label is given.
    """

    name: str
    pictures: tuple[Path, ...]


@dataclass(frozen=True, eq=False)
class Curve:
    """Values per frame of one thing that is followed through one clip.

    Attributes:
        clip: name of the clip.
        target: what is followed: an object id ("1"), or "joints".
        frames: positions in the clip (0 is the given frame) of the frames that are scored, ascending.
        values: metric ("J", "F", "PCK@0.2") -> one value in [0, 1] per scored frame; NaN where nothing counted.
    """

    clip: str
    target: str
    frames: tuple[int, ...]
    values: Mapping[str, Float64[ndarray, " t"]]


@dataclass(frozen=True, eq=False)
class Table:
    """One file of numbers.

    Attributes:
        file: its name ("global_results-val.csv").
        columns: headings.
        rows: cells as text, already rounded as the file wants them.
    """

    file: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, eq=False)
class Scores:
    """What the results of one method are worth.

    Attributes:
        totals: metric -> value over the whole data set, the one that ranks methods first. Shares in [0, 1].
        clips: clip -> metric -> value, the same metrics as far as they make sense for one clip. Clips that could not
            be scored are missing.
        curves: per-frame values, of every clip and target that was scored.
        tables: the data set's official files and whatever else it is used to print.
        problems: clip -> sentences: what was wrong with its results. A clip that is here may be scored all the same.
        remarks: sentences about the whole (coverage, a subset).
    """

    totals: Mapping[str, float]
    clips: Mapping[str, Mapping[str, float]]
    curves: tuple[Curve, ...]
    tables: tuple[Table, ...]
    problems: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Published:
    """A row of somebody's paper, to stand beside ours.

    Attributes:
        method: its name there.
        totals: metric -> value as a share in [0, 1], under the names of `Scores.totals`.
        source: paper or repository.
        command: how it would be run here; empty where it cannot.
    """

    method: str
    totals: Mapping[str, float]
    source: str
    command: str = ""


@runtime_checkable
class Benchmark(Protocol):
    """A data set with its protocol. Implementations are frozen dataclasses that can be pickled."""

    @property
    def name(self) -> str:
        """For file names and commands ("davis-2017")."""
        ...

    @property
    def title(self) -> str:
        """Data, split and protocol in one line, for tables ("DAVIS-2017 val, semi-supervised")."""
        ...

    @property
    def clips(self) -> tuple[Clip, ...]:
        """The clips that are run, in the order of the data set's list."""
        ...

    @property
    def published(self) -> tuple[Published, ...]:
        """Rows of papers on the same data and protocol; empty for a subset."""
        ...

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader must know before comparing ("a subset: 2 of 30 clips")."""
        ...

    @property
    def settings(self) -> tuple[str, ...]:
        """Settings that the protocol demands, as `--set` takes them; the user's own come after them."""
        ...

    @property
    def difference_colors(self) -> Mapping[str, tuple[int, int, int]]:
        """What a color of the third picture of `compare` says -> RGB."""
        ...

    def frames(self, clip: Clip) -> Iterable[Frame]:
        """The clip's frames, as the protocol wants them seen; `index` is the position in the clip."""
        ...

    def label(self, clip: Clip) -> Label:
        """The given label of frame 0, as the protocol wants it seen."""
        ...

    def writer(self, clip: Clip, folder: Path) -> AbstractContextManager[Write]:
        """Writes the predictions of one clip into `folder`, which exists and is the clip's own."""
        ...

    def score(self, results: Path) -> Scores:
        """Scores `results/<clip>/...`, whoever made it. Missing or wrong pieces are problems, not exceptions.

        Raises:
            InputError: not one clip could be scored.
        """
        ...

    def compare(self, clip: Clip, results: Path, frame: int) -> tuple[UInt8[ndarray, "h w 3"], ...]:
        """Three RGB pictures of one frame, of one size: the prediction, the truth, and where they differ."""
        ...
