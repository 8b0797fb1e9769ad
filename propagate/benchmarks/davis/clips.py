"""DAVIS 2016 and 2017, semi-supervised: the first frame's mask is given, the objects are to be found in all others.

Scored as davis2017-evaluation does it (Pont-Tuset et al., arXiv 1704.00675), to the last digit:

- The first and the last annotated frame of a sequence are not scored.
- The objects are those of the first mask, as many as its highest id; what appears later is never scored.
- Void pixels of the truth (255) become background, and count. Results have no void.
- A result with fewer objects is filled up with empty ones.
- Every object counts once, whatever the length of its sequence and the number of objects in it.

Where the official code would stop (a scored frame is missing, has another size, RGB pixels, or ids beyond the number of
objects), the sequence is not scored and the rest is. Results are found by the names of the annotation files.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from propagate.benchmarks.benchmark import Clip, Curve, Published, Scores, Write
from propagate.benchmarks.davis.difference import DIFFERENCE_COLORS, draw_difference
from propagate.benchmarks.davis.score import read_result, score_clip
from propagate.benchmarks.davis.tables import curves_table, global_table, mean_metrics, sequence_table
from propagate.benchmarks.davis.tree import ALL, AnnotatedClip, Tree, Year
from propagate.errors import InputError
from propagate.files.names import reading
from propagate.formats import draw_mask, write_mask
from propagate.types import BACKGROUND, Frame, Mask, Prediction
from propagate.video.folder import read_picture

_RATE = 24.0  # frames per second at which the sequences were filmed (Perazzi et al., CVPR 2016)

# (clips, frames, objects) of the val splits. 2017 is what published scores are about, and nothing else may be taken
# for it; with 2016 the difference is only told.
_WHOLE_VAL: dict[Year, tuple[int, int, int]] = {2016: (20, 1376, 20), 2017: (30, 1999, 61)}

_SOURCE = "as printed in DIFT (Tang et al., NeurIPS 2023)"
_COMMAND = "propagate evaluate davis --data DAVIS --year 2017 --config"
_PUBLISHED = (
    Published("DIFT_sd", {"J&F": 0.700, "J-Mean": 0.674, "F-Mean": 0.725}, _SOURCE, f"{_COMMAND} dift_sd_davis"),
    Published("DIFT_adm", {"J&F": 0.757, "J-Mean": 0.727, "F-Mean": 0.786}, _SOURCE, f"{_COMMAND} dift_adm_davis"),
    Published("DINO", {"J&F": 0.714, "J-Mean": 0.679, "F-Mean": 0.749}, _SOURCE),
    Published("OpenCLIP", {"J&F": 0.625, "J-Mean": 0.606, "F-Mean": 0.644}, _SOURCE),
    Published("CRW", {"J&F": 0.676}, _SOURCE),
    Published("SFC", {"J&F": 0.712}, _SOURCE),
)


@dataclass(frozen=True)
class Davis:
    """DAVIS as a `Benchmark`; made by `load_davis`.

    Attributes:
        tree: where its files are and how they are read.
        split: name of the split.
        annotated: the clips with their truth.
        listed: how many clips the split has; None where its list is not in the tree.
        outside: names of the clips that are not in the split.
    """

    tree: Tree
    split: str
    annotated: tuple[AnnotatedClip, ...]
    listed: int | None
    outside: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """For file names and commands ("davis-2017")."""
        return f"davis-{self.tree.year}"

    @property
    def title(self) -> str:
        """Data, split and protocol in one line, for tables."""
        clips = _count(len(self.annotated), "clip")
        if self.listed is None or self.outside:
            part = f", {clips} by name"
        elif self.split == ALL:
            part = f", {self._share}" if self._is_subset else f", {clips}: all of the tree"
        elif self._is_subset:
            part = f" {self.split}{'' if self._has_official_list else ' by another list'}, {self._share}"
        else:
            part = f" {self.split}" if self._is_official else f" {self.split} by another list, {clips}"
        size = "" if self.tree.resolution == "480p" else f" {self.tree.resolution}"
        return f"DAVIS-{self.tree.year}{size}{part}, semi-supervised"

    @property
    def clips(self) -> tuple[Clip, ...]:
        """The clips in the order of the list, or in the order they were named."""
        return tuple(annotated.clip for annotated in self.annotated)

    @property
    def settings(self) -> tuple[str, ...]:
        """What the protocol demands of every preset: nothing."""
        return ()

    @property
    def difference_colors(self) -> Mapping[str, tuple[int, int, int]]:
        """Those of `draw_difference`."""
        return DIFFERENCE_COLORS

    @property
    def published(self) -> tuple[Published, ...]:
        """What the paper of DIFT prints for 2017 val at 480p (its reference draws unseeded noise)."""
        same_data = (self.tree.year, self.split, self.tree.resolution) == (2017, "val", "480p")
        return _PUBLISHED if same_data and self._is_official and not self.outside else ()

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader must know before comparing."""
        remarks = []
        if self.listed is not None and not self._has_official_list and (self._is_subset or self.outside):
            clips = _count(self.listed, "clip")
            remarks.append(f"Not the official val split: its list has {clips} instead of {self._official[0]}.")
        if self.listed is None:
            remarks.append(f"A subset by name; the tree has no list of the {self.split} split.")
        elif self.outside:
            remarks.append(f"A choice by name, of which the {self.split} split has not: {', '.join(self.outside)}.")
        elif self._is_subset:
            remarks.append(f"A subset: {self._share}; not comparable with scores of all.")
        elif self.split == ALL:
            remarks.append("All that lies in the tree; not comparable with scores of an official split.")
        elif not self._is_official:
            remarks.append(f"Not the official val split: {_counted(self.counts, self._official)}.")
        return tuple(remarks)

    @property
    def counts(self) -> tuple[int, int, int]:
        """Numbers of clips, frames and objects."""
        return (
            len(self.annotated),
            sum(len(annotated.masks) for annotated in self.annotated),
            sum(annotated.objects for annotated in self.annotated),
        )

    def frames(self, clip: Clip) -> Iterator[Frame]:
        """The clip's frames at their own size, one at a time.

        Raises:
            InputError: one cannot be read.
        """
        for index, path in enumerate(clip.pictures):
            yield Frame(read_picture(path), index, index / _RATE, path.stem)

    def label(self, clip: Clip) -> Mask:
        """The objects of frame 0; void is background.

        Raises:
            InputError: it cannot be read.
        """
        return self.tree.truth(self._of(clip).masks[0])

    @contextmanager
    def writer(self, clip: Clip, folder: Path) -> Iterator[Write]:
        """Writes indexed PNGs under the names of the annotations, each whole or not at all; frame 0 is the given mask.

        Writing raises `InputError` where the folder cannot be written.
        """
        masks = self._of(clip).masks

        def write(frame: Frame, prediction: Prediction) -> None:
            mask = self.label(clip) if frame.index == 0 else prediction.mask
            assert mask is not None  # masks go in, so masks come out
            write_mask(folder / masks[frame.index].name, mask)

        yield write

    def score(self, results: Path) -> Scores:
        """The official J and F of `results/<clip>/00001.png` and so on.

        Raises:
            InputError: not one clip could be scored.
        """
        scored = {a.clip.name: score_clip(self.tree, a, results / a.clip.name) for a in self.annotated}
        problems = {name: clip.problems for name, clip in scored.items() if clip.problems}
        remarks = [f"{name}: {remark}" for name, clip in scored.items() for remark in clip.remarks]
        curves = [curve for clip in scored.values() for curve in clip.curves]
        if not curves:
            name, sentences = next(iter(problems.items()))
            raise InputError(
                f"Nothing in {results} could be scored. {name}: {' '.join(sentences)}",
                "Give a folder with one folder of indexed PNGs per clip, named as the annotations are.",
            )
        by_clip: dict[str, list[Curve]] = defaultdict(list)
        for curve in curves:
            by_clip[curve.clip].append(curve)
        if len(by_clip) < len(self.annotated):
            share = f"{len(by_clip)} of {_count(len(self.annotated), 'clip')}"
            remarks.insert(0, f"Only {share} could be scored; the totals are theirs alone.")
        totals = mean_metrics(curves)
        tables = (
            global_table(self.split, totals),
            sequence_table(self.split, curves),
            curves_table(curves),
        )
        clips = {name: mean_metrics(own) for name, own in by_clip.items()}
        return Scores(totals, clips, tuple(curves), tables, problems, tuple(remarks))

    def compare(self, clip: Clip, results: Path, frame: int) -> tuple[UInt8[ndarray, "h w 3"], ...]:
        """The frame with the predicted mask, with the true one, and where they differ (`DIFFERENCE_COLORS`).

        Raises:
            InputError: a picture cannot be read, or the result has another size than the frame.
        """
        annotated = self._of(clip)
        path = results / clip.name / annotated.masks[frame].name
        pixels, prediction = read_picture(clip.pictures[frame]), read_result(self.tree, path)
        ids = self.tree.truth(annotated.masks[frame]).ids
        truth = Mask(np.where(ids <= annotated.objects, ids, np.uint8(BACKGROUND)))
        for mask, name in ((prediction, path), (truth, annotated.masks[frame])):
            if mask.size != pixels.shape[:2]:
                sizes = "{1}x{0}, but its frame is {3}x{2}".format(*mask.size, *pixels.shape[:2])
                raise InputError(f"{name} is {sizes}.", "Replace it.")
        return draw_mask(pixels, prediction), draw_mask(pixels, truth), draw_difference(pixels, truth, prediction)

    @property
    def _is_subset(self) -> bool:
        return len(self.annotated) != self.listed

    @property
    def _is_official(self) -> bool:
        """Whether it has the size of the official split, where that is known."""
        return self.split != "val" or self.counts == self._official

    @property
    def _has_official_list(self) -> bool:
        """Whether the list has as many clips as the official one, where that is known; needs no clip but its names."""
        return self.split != "val" or self.listed == self._official[0]

    @property
    def _official(self) -> tuple[int, int, int]:
        """Clips, frames and objects of the official val split."""
        return _WHOLE_VAL[self.tree.year]

    @property
    def _share(self) -> str:
        return f"{len(self.annotated)} of {self.listed} clips"

    def _of(self, clip: Clip) -> AnnotatedClip:
        return next(annotated for annotated in self.annotated if annotated.clip.name == clip.name)


def load_davis(
    data: Path, *, year: Year, split: str = "val", sequences: Sequence[str] = (), resolution: str = "480p"
) -> Davis:
    """DAVIS from its folder, with everything that will be needed known to be there.

    Args:
        data: the folder that holds `JPEGImages`, `Annotations` and, for a split, `ImageSets`.
        year: 2016 (one object, black and white) or 2017 (object ids).
        split: name of a list, or "all": every sequence that lies in the tree.
        sequences: only these, in this order; needs no list.
        resolution: "480p", "1080p" (2016) or "Full-Resolution" (2017).

    Raises:
        InputError: pieces are missing or do not fit, all of them named; or 2017 val is not the official one.
        UsageError: a sequence is not in the tree, or a split or resolution is no plain name.
    """
    tree = Tree(Path(data), year, resolution)
    with reading(tree.root):
        names, listed = tree.choose(split, sequences)
        annotated = tree.read(names)
    outside = tuple(name for name in names if name not in listed) if listed else ()
    davis = Davis(tree, split, annotated, None if listed is None else len(listed), outside)
    if (year, split) == (2017, "val") and not sequences and davis.counts != _WHOLE_VAL[2017]:
        raise InputError(
            f"The val split of {data} is not that of DAVIS-2017: {_counted(davis.counts, _WHOLE_VAL[2017])}.",
            "Complete the tree, or say which sequences to take with --sequence.",
        )
    return davis


def _counted(found: tuple[int, int, int], official: tuple[int, int, int]) -> str:
    """Both counts in words."""
    words = [
        ", ".join(_count(n, thing) for n, thing in zip(numbers, ("clip", "frame", "object"), strict=True))
        for numbers in (found, official)
    ]
    return f"it has {words[0]} instead of {words[1]}"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
