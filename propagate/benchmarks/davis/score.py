"""J and F of one clip's results and their faults, the official tables, and pictures of differences."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from propagate.benchmarks.benchmark import Curve, Table
from propagate.benchmarks.davis.tree import AnnotatedClip, Tree, convert_mask
from propagate.benchmarks.scoring import listed
from propagate.errors import InputError
from propagate.files.names import reading
from propagate.formats import read_indexed_png
from propagate.metrics import boundary_accuracy, region_similarity, statistics
from propagate.types import BACKGROUND, VOID, Mask

METRICS = ("J&F", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay")

# Meaning -> RGB of `draw_difference`. Under full protanopia, deuteranopia or tritanopia (Machado et al., IEEE TVCG
# 2009) the closest two are still 29 units of CIE 1976 L*a*b* apart.
DIFFERENCE_COLORS: Mapping[str, tuple[int, int, int]] = MappingProxyType(
    {"hit": (0, 120, 80), "missed": (240, 228, 66), "false alarm": (213, 94, 0), "wrong object": (86, 180, 233)}
)
_DARKER = 3  # the frame is only for orientation
_WEIGHT = 0.8  # of the color over the darkened frame


@dataclass(frozen=True, eq=False)
class ClipScore:
    """The scores of one clip's results."""

    curves: tuple[Curve, ...]  # J and F of each object; empty where the clip could not be scored
    problems: tuple[str, ...] = ()  # sentences about faults of the files
    remarks: tuple[str, ...] = ()  # sentences about valid but unusual results


def score_clip(tree: Tree, annotated: AnnotatedClip, folder: Path) -> ClipScore:
    """Score `folder/00001.png` and so on against the truth, without the first and the last frame.

    All frames are read even after a fault, so that the problems name all faults at once.
    """
    try:
        with reading(folder):
            return _score_clip(tree, annotated, folder)
    except InputError as error:
        return ClipScore((), (f"Not scored: {error.message}",))


def _score_clip(tree: Tree, annotated: AnnotatedClip, folder: Path) -> ClipScore:
    if not folder.is_dir():
        elsewhere = sorted(folder.parent.glob(f"*/{folder.name}"))
        hint = f" Did you mean --results {elsewhere[0].parent}?" if elsewhere else ""
        return ClipScore((), (f"Not scored: the folder {folder} does not exist.{hint}",))
    name, masks, objects = annotated.clip.name, annotated.masks, range(1, annotated.objects + 1)
    positions = range(1, len(masks) - 1)
    absent = "scored frames are missing"
    if any(folder.glob("*.[jJ][pP]*[gG]")):
        absent += "; the folder has .jpg files, and PNG is needed"
    values = np.zeros((2, len(objects), len(positions)))
    faults: dict[str, list[str]] = defaultdict(list)
    found: set[int] = set()
    gray = False
    for column, position in enumerate(positions):
        path = folder / masks[position].name
        checked = _read_pair(tree, masks[position], path, annotated.objects) if path.is_file() else absent
        if isinstance(checked, str):
            faults[checked].append(masks[position].name)
        elif not faults:
            truth, prediction, is_gray = checked
            gray |= is_gray
            found.update(prediction.objects)
            for row, number in enumerate(objects):
                regions = truth.ids == number, prediction.ids == number
                values[:, row, column] = region_similarity(*regions), boundary_accuracy(*regions)
    problems = [
        f"Not scored: {fault} ({len(names)} of {len(positions)}: {listed(names)})." for fault, names in faults.items()
    ]
    known = {mask.name for mask in masks}
    if strangers := sorted(f.name for f in folder.glob("*.png") if f.name not in known and not f.name.startswith(".")):
        problems.append(f"Ignored, not frames of this clip: {listed(strangers)}.")
    if faults:
        return ClipScore((), tuple(problems))
    curves = [
        Curve(name, str(number), tuple(positions), {"J": values[0, row], "F": values[1, row]})
        for row, number in enumerate(objects)
    ]
    never = [number for number in objects if number not in found]
    remarks = [f"object {number} is in none of the scored results and counts as empty." for number in never]
    if gray:
        remarks.append("results have gray values; everything above 0 counts as the object.")
    return ClipScore(tuple(curves), tuple(problems), tuple(remarks))


def read_result(tree: Tree, path: Path) -> Mask:
    """Read a result. For DAVIS-2016, everything that is not black is the object."""
    return _result(tree, read_indexed_png(path))


def _result(tree: Tree, stored: Mask) -> Mask:
    return convert_mask(stored, 2016) if tree.year == 2016 else stored


def _is_gray(stored: Mask) -> bool:
    """Whether values other than 0 and 1, or 0 and 255, occur: soft borders or probabilities."""
    highest = int(stored.ids.max())
    return highest not in (0, 1, 255) or bool(((stored.ids > 0) & (stored.ids < highest)).any())


def _read_pair(tree: Tree, truth_path: Path, path: Path, objects: int) -> tuple[Mask, Mask, bool] | str:
    """Return truth, result, and whether a 2016 result is gray; or the fault at which the official code would stop."""
    try:
        stored = read_indexed_png(path)
    except InputError as error:
        return error.message.replace(f"The mask {path}", "a result").replace(str(path), "a result").rstrip(".")
    prediction = _result(tree, stored)
    try:
        truth = tree.truth(truth_path)
    except InputError as error:
        return f"the truth cannot be used: {error.message.rstrip('.')}"
    if prediction.size != truth.size:
        return "results are {1}x{0} instead of {3}x{2}".format(*prediction.size, *truth.size)
    if (prediction.ids == VOID).any():
        return "results have pixels of value 255, which is no object"
    if prediction.ids.max() > objects:
        return f"results have ids beyond those of the first mask, 1 to {objects}"
    return truth, prediction, tree.year == 2016 and _is_gray(stored)


def mean_metrics(curves: Sequence[Curve]) -> dict[str, float]:
    """Return the seven numbers of the official table, named as in `METRICS`; all objects have equal weight."""
    totals: dict[str, float] = {}
    for metric in ("J", "F"):
        objects = [statistics(curve.values[metric]) for curve in curves]
        for kind in ("mean", "recall", "decay"):
            totals[f"{metric}-{kind.capitalize()}"] = float(np.mean([getattr(own, kind) for own in objects]))
    totals["J&F"] = (totals["J-Mean"] + totals["F-Mean"]) / 2
    return {name: totals[name] for name in METRICS}


def global_table(split: str, totals: Mapping[str, float]) -> Table:
    """Return `global_results-val.csv`: one row of three decimals."""
    columns = ("J&F-Mean", *METRICS[1:])
    return Table(f"global_results-{split}.csv", columns, (tuple(f"{totals[name]:.3f}" for name in METRICS),))


def sequence_table(split: str, curves: Sequence[Curve]) -> Table:
    """Return `per-sequence_results-val.csv`: a row of three decimals per object, named `sequence_1`."""
    rows = []
    for curve in curves:
        means = (statistics(curve.values[metric]).mean for metric in ("J", "F"))
        rows.append((f"{curve.clip}_{curve.target}", *(f"{mean:.3f}" for mean in means)))
    return Table(f"per-sequence_results-{split}.csv", ("Sequence", "J-Mean", "F-Mean"), tuple(rows))


def draw_difference(pixels: UInt8[ndarray, "h w 3"], truth: Mask, prediction: Mask) -> UInt8[ndarray, "h w 3"]:
    """Color the objects of either mask over the darkened (H, W, 3) frame with `DIFFERENCE_COLORS`."""
    if not truth.size == prediction.size == pixels.shape[:2]:
        raise ValueError(f"sizes differ: pixels {pixels.shape[:2]}, truth {truth.size}, prediction {prediction.size}")
    true, predicted = truth.ids != BACKGROUND, prediction.ids != BACKGROUND
    same = truth.ids == prediction.ids
    places = {
        "hit": true & same,
        "missed": true & ~predicted,
        "false alarm": predicted & ~true,
        "wrong object": true & predicted & ~same,
    }
    dark = pixels // _DARKER
    drawn = dark.copy()
    for name, where in places.items():
        color = np.asarray(DIFFERENCE_COLORS[name], np.float32)
        drawn[where] = np.round(dark[where] * np.float32(1 - _WEIGHT) + color * np.float32(_WEIGHT)).astype(np.uint8)
    return drawn
