"""DAVIS 2016 and 2017, semi-supervised: the mask of the first frame is given, the others are predicted.

Scores equal those of davis2017-evaluation (Pont-Tuset et al., arXiv 1704.00675) to the last digit:

- The first and the last annotated frame of a sequence are not scored.
- The objects are those of the first mask, up to its highest id; objects that appear later are not scored.
- Void pixels of the truth (255) become background, and count. Results have no void.
- Objects that a result lacks are empty.
- All objects have equal weight, whatever the length of their sequence and the number of objects in it.

Where the official code would stop (a scored frame is missing, has another size, RGB pixels, or ids beyond the number of
objects), the sequence is not scored and the others are. Results have the names of the annotation files.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from propagate.benchmarks.benchmark import Clip, Curve, Published, Scores, Write
from propagate.benchmarks.davis.score import (
    DIFFERENCE_COLORS,
    draw_difference,
    global_table,
    mean_metrics,
    read_result,
    score_clip,
    sequence_table,
)
from propagate.benchmarks.davis.tree import ALL, AnnotatedClip, Tree, Year
from propagate.benchmarks.scoring import curve_table
from propagate.errors import InputError
from propagate.files.names import reading
from propagate.formats import draw_mask, write_mask
from propagate.types import BACKGROUND, Frame, Mask, Prediction
from propagate.video.folder import read_picture

_RATE = 24.0  # frames per second of the recordings (Perazzi et al., CVPR 2016)

# (clips, frames, objects) of the val splits. Published scores are for 2017, so another val split is an error there; for
# 2016 it is only a remark.
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
    """DAVIS as a `Benchmark`; made by `load_davis`."""

    settings: ClassVar[tuple[str, ...]] = ()
    difference_colors: ClassVar[Mapping[str, tuple[int, int, int]]] = DIFFERENCE_COLORS
    tree: Tree  # paths and readers of its files
    split: str  # name of the split
    annotated: tuple[AnnotatedClip, ...]  # clips with their truth
    listed: int | None  # number of clips in the split; None where its list is not in the tree
    outside: tuple[str, ...] = ()  # names of clips that are not in the split

    @property
    def name(self) -> str:
        """ "davis-2016" or "davis-2017"."""
        return f"davis-{self.tree.year}"

    @property
    def title(self) -> str:
        """Data, split and protocol in one line."""
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
        """Clips in the order of the list or of --sequence."""
        return tuple(annotated.clip for annotated in self.annotated)

    @property
    def published(self) -> tuple[Published, ...]:
        """Scores of the DIFT paper for 2017 val at 480p (its reference draws unseeded noise)."""
        same_data = (self.tree.year, self.split, self.tree.resolution) == (2017, "val", "480p")
        return _PUBLISHED if same_data and self._is_official and not self.outside else ()

    @property
    def remarks(self) -> tuple[str, ...]:
        """Notes on subsets and unofficial splits."""
        remarks = []
        if self.listed is not None and not self._has_official_list and (self._is_subset or self.outside):
            clips = _count(self.listed, "clip")
            remarks.append(f"Not the official val split: its list has {clips} instead of {self._official[0]}.")
        if self.listed is None:
            remarks.append(f"A subset by name; the tree has no list of the {self.split} split.")
        elif self.outside:
            remarks.append(f"A selection by name; not in the {self.split} split: {', '.join(self.outside)}.")
        elif self._is_subset:
            remarks.append(f"A subset: {self._share}; not comparable with scores of all.")
        elif self.split == ALL:
            remarks.append("All sequences of the tree; not comparable with scores of an official split.")
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
        """Yield the clip's frames at their own size; an InputError says which cannot be read."""
        for index, path in enumerate(clip.pictures):
            yield Frame(read_picture(path), index, index / _RATE, path.stem)

    def label(self, clip: Clip) -> Mask:
        """Return the mask of frame 0 with void as background."""
        return self.tree.truth(self._of(clip).masks[0])

    @contextmanager
    def writer(self, clip: Clip, folder: Path) -> Iterator[Write]:
        """Write indexed PNGs atomically, named like the annotations; frame 0 is the given mask."""
        masks = self._of(clip).masks

        def write(frame: Frame, prediction: Prediction) -> None:
            mask = self.label(clip) if frame.index == 0 else prediction.mask
            assert mask is not None
            write_mask(folder / masks[frame.index].name, mask)

        yield write

    def score(self, results: Path) -> Scores:
        """Return the official J and F of `results/<clip>/00001.png` and so on."""
        scored = {a.clip.name: score_clip(self.tree, a, results / a.clip.name) for a in self.annotated}
        problems = {name: clip.problems for name, clip in scored.items() if clip.problems}
        remarks = [f"{name}: {remark}" for name, clip in scored.items() for remark in clip.remarks]
        curves = [curve for clip in scored.values() for curve in clip.curves]
        if not curves:
            name, sentences = next(iter(problems.items()))
            raise InputError(
                f"Nothing in {results} could be scored. {name}: {' '.join(sentences)}",
                "Give a folder with one folder of indexed PNGs per clip, named like the annotations.",
            )
        by_clip: dict[str, list[Curve]] = defaultdict(list)
        for curve in curves:
            by_clip[curve.clip].append(curve)
        if len(by_clip) < len(self.annotated):
            share = f"{len(by_clip)} of {_count(len(self.annotated), 'clip')}"
            remarks.insert(0, f"Only {share} could be scored; the totals are theirs alone.")
        totals = mean_metrics(curves)
        tables = global_table(self.split, totals), sequence_table(self.split, curves), curve_table(curves, "object")
        clips = {name: mean_metrics(own) for name, own in by_clip.items()}
        return Scores(totals, clips, tuple(curves), tables, problems, tuple(remarks))

    def compare(self, clip: Clip, results: Path, frame: int) -> tuple[UInt8[ndarray, "h w 3"], ...]:
        """Draw the predicted mask, the true one, and their difference (`DIFFERENCE_COLORS`)."""
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
        return self.split != "val" or self.counts == self._official

    @property
    def _has_official_list(self) -> bool:
        """Whether the list has as many clips as the official one, where that is known."""
        return self.split != "val" or self.listed == self._official[0]

    @property
    def _official(self) -> tuple[int, int, int]:
        return _WHOLE_VAL[self.tree.year]

    @property
    def _share(self) -> str:
        return f"{len(self.annotated)} of {self.listed} clips"

    def _of(self, clip: Clip) -> AnnotatedClip:
        return next(annotated for annotated in self.annotated if annotated.clip.name == clip.name)


def load_davis(
    data: Path, *, year: Year, split: str = "val", sequences: Sequence[str] = (), resolution: str = "480p"
) -> Davis:
    """Load DAVIS and verify its files.

    Args:
        data: folder with `JPEGImages`, `Annotations` and, for a split, `ImageSets`.
        year: 2016 (one object, black and white) or 2017 (object ids).
        split: name of a list, or "all": all sequences of the tree.
        sequences: names of sequences, in this order; they need no list.
        resolution: "480p", "1080p" (2016) or "Full-Resolution" (2017).

    Raises:
        InputError: files are missing or do not match, all of them named; or 2017 val is not the official one.
        UsageError: a sequence is not in the tree, or a split or resolution is not a plain name.
    """
    tree = Tree(Path(data), year, resolution)
    with reading(tree.root):
        names, in_list = tree.select(split, sequences)
        annotated = tree.read(names)
    outside = tuple(name for name in names if name not in in_list) if in_list else ()
    davis = Davis(tree, split, annotated, None if in_list is None else len(in_list), outside)
    if (year, split) == (2017, "val") and not sequences and davis.counts != _WHOLE_VAL[2017]:
        raise InputError(
            f"The val split of {data} is not that of DAVIS-2017: {_counted(davis.counts, _WHOLE_VAL[2017])}.",
            "Complete the tree, or select sequences with --sequence.",
        )
    return davis


def _counted(found: tuple[int, int, int], official: tuple[int, int, int]) -> str:
    words = [
        ", ".join(_count(n, thing) for n, thing in zip(numbers, ("clip", "frame", "object"), strict=True))
        for numbers in (found, official)
    ]
    return f"it has {words[0]} instead of {words[1]}"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
