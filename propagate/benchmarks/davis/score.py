"""J and F of one clip's results, and what is wrong with them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from propagate.benchmarks.benchmark import Curve
from propagate.benchmarks.davis.tree import AnnotatedClip, Tree, counted_mask
from propagate.errors import InputError
from propagate.files.names import reading
from propagate.formats import read_indexed_png
from propagate.metrics import boundary_accuracy, region_similarity
from propagate.types import VOID, Mask

_NAMED = 5  # files that a sentence names before it only counts them


@dataclass(frozen=True, eq=False)
class ClipScore:
    """What one clip's results are worth.

    Attributes:
        curves: J and F of each object; empty where the clip could not be scored.
        problems: sentences: what is wrong with the files.
        remarks: sentences: what is right and yet worth knowing.
    """

    curves: tuple[Curve, ...]
    problems: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def score_clip(tree: Tree, annotated: AnnotatedClip, folder: Path) -> ClipScore:
    """Score `folder/00001.png` and so on against the truth, without the first and the last frame.

    All frames are looked at, also after the first that cannot be scored, so that everything is named at once.
    """
    try:
        with reading(folder):
            return _score_clip(tree, annotated, folder)
    except InputError as error:
        return ClipScore((), (f"Not scored: {error.message}",))


def _score_clip(tree: Tree, annotated: AnnotatedClip, folder: Path) -> ClipScore:
    if not folder.is_dir():
        return ClipScore((), (f"Not scored: the folder {folder} does not exist.{_deeper(folder)}",))
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
        checked = _pair(tree, masks[position], path, annotated.objects) if path.is_file() else absent
        if isinstance(checked, str):
            faults[checked].append(masks[position].name)
        elif not faults:
            truth, prediction, has_grays = checked
            gray |= has_grays
            found.update(prediction.objects)
            for row, number in enumerate(objects):
                regions = truth.ids == number, prediction.ids == number
                values[:, row, column] = region_similarity(*regions), boundary_accuracy(*regions)
    problems = [
        f"Not scored: {fault} ({len(names)} of {len(positions)}: {_some(names)})." for fault, names in faults.items()
    ]
    known = {mask.name for mask in masks}
    if strangers := sorted(f.name for f in folder.glob("*.png") if f.name not in known and not f.name.startswith(".")):
        problems.append(f"Left out, being no frames of this clip: {_some(strangers)}.")
    if faults:
        return ClipScore((), tuple(problems))
    curves = [
        Curve(name, str(number), tuple(positions), {"J": values[0, row], "F": values[1, row]})
        for row, number in enumerate(objects)
    ]
    never = [str(number) for number in objects if number not in found]
    remarks = [f"object {number} is in none of the scored results and counts as empty." for number in never]
    if gray:
        remarks.append("results have gray values; everything above 0 counts as the object.")
    return ClipScore(tuple(curves), tuple(problems), tuple(remarks))


def read_result(tree: Tree, path: Path) -> Mask:
    """A result; of 2016, whatever is not black is the object.

    Raises:
        InputError: unreadable, or not of one channel.
    """
    return _counted(tree, read_indexed_png(path))


def _counted(tree: Tree, stored: Mask) -> Mask:
    """A stored result as it counts."""
    return counted_mask(stored, 2016) if tree.year == 2016 else stored


def _is_gray(stored: Mask) -> bool:
    """Whether there are other values than 0 and 1, or 0 and 255: soft borders or probabilities."""
    highest = int(stored.ids.max())
    return highest not in (0, 1, 255) or bool(((stored.ids > 0) & (stored.ids < highest)).any())


def _pair(tree: Tree, truth_path: Path, path: Path, objects: int) -> tuple[Mask, Mask, bool] | str:
    """Truth and result as the official code would take them and whether a result of 2016 is gray, or why it would stop.

    A result of 2017 is never gray: its values are ids.
    """
    try:
        stored = read_indexed_png(path)
    except InputError as error:
        return error.message.replace(f"The mask {path}", "a result").replace(str(path), "a result").rstrip(".")
    prediction = _counted(tree, stored)
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


def _deeper(folder: Path) -> str:
    """Where the folder of a clip is instead, if the results lie one level down; starts with a space, or is nothing."""
    found = sorted(folder.parent.glob(f"*/{folder.name}"))
    return f" Did you mean --results {found[0].parent}?" if found else ""


def _some(names: Sequence[str]) -> str:
    """The first of them, and that there are more."""
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
