"""Helpers of the data sets: scoring clip by clip, cells and tables of scores, lists and folders in messages."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from propagate.benchmarks.benchmark import Curve, Table
from propagate.errors import InputError
from propagate.files.names import reading

ScoredT = TypeVar("ScoredT")
_LISTED = 8  # items that a message names before it only counts the rest


def score_clips(
    results: Path, names: Iterable[str], score: Callable[[str], ScoredT]
) -> tuple[dict[str, ScoredT], dict[str, tuple[str, ...]]]:
    """Score each clip with `score(name)`; an InputError becomes a problem of its clip.

    Returns:
        Clip -> its scores, and clip -> its problems.
    """
    scored, problems = dict[str, ScoredT](), dict[str, tuple[str, ...]]()
    for name in names:
        try:
            with reading(results / name):
                scored[name] = score(name)
        except InputError as error:
            problems[name] = (str(error),)
    if not scored:
        first = next(iter(problems.values()))[0]
        raise InputError(f"No clip in {results} could be scored. The first one: {first}")
    return scored, problems


def unscored_remark(scored: Sized, problems: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Return a remark where clips could not be scored."""
    if not problems:
        return ()
    return (f"Only {len(scored)} of {len(scored) + len(problems)} clips were scored, without {listed([*problems])}.",)


def curve_table(curves: Sequence[Curve], target: str = "") -> Table:
    """Return `curves.csv` in full precision: one row per scored frame, one column per metric.

    Args:
        curves: at least one, all with the same metrics.
        target: heading of a column of targets; empty: no such column.
    """
    metrics = tuple(curves[0].values)
    rows = []
    for curve in curves:
        columns = (curve.values[metric].tolist() for metric in metrics)
        name = (curve.clip, curve.target) if target else (curve.clip,)
        for frame, *values in zip(curve.frames, *columns, strict=True):
            rows.append((*name, str(frame), *("" if math.isnan(value) else repr(value) for value in values)))
    return Table("curves.csv", ("sequence", *([target] if target else []), "frame", *metrics), tuple(rows))


def mean(values: Float64[ndarray, " n"]) -> float:
    """Return the mean without NaN; NaN where no value is left."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


def cell(value: float) -> str:
    """Format a share with four decimals; NaN gives an empty cell."""
    return "" if math.isnan(value) else f"{value:.4f}"


def listed(items: Sequence[object], separator: str = ", ") -> str:
    """Join the first items of a list, and count the rest."""
    more = f"{separator}and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
    return separator.join(map(str, items[:_LISTED])) + more


def suggest_folder(given: Path, holds: Sequence[str], option: str) -> str:
    """Ask for the folder that was probably meant: the nearest one that holds these names, above or one level below.

    Returns "Did you mean OPTION FOLDER?", or "" where there is no such folder.
    """
    # Unlike `is_dir`, `glob` skips folders that may not be entered.
    near = [*given.absolute().parents[:3], *sorted(path.parent for path in given.glob(f"*/{holds[0]}"))]
    meant = next((folder for folder in near if all(any(folder.glob(name)) for name in holds)), None)
    return f"Did you mean {option} {meant}?" if meant else ""
