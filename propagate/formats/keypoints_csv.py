"""Keypoints as CSV with the columns frame, name, x, y, confidence."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from propagate.errors import InputError
from propagate.formats.poses import Pose, keypoints_of, shortest, unknown
from propagate.types import Keypoints, Prediction

COLUMNS = ("frame", "name", "x", "y", "confidence")
_REQUIRED = ("name", "x", "y")


def poses_of_csv(text: str, path: Path) -> list[Pose]:
    """The poses of a file, one for each frame; every joint named anywhere in the file belongs to each of them.

    Raises:
        InputError: unknown or missing columns, a value that is no number, a joint twice in one frame.
    """
    reader = csv.DictReader(io.StringIO(text), skipinitialspace=True)
    columns = [(column or "").strip() for column in reader.fieldnames or ()]
    for column in columns:
        if column not in COLUMNS:
            raise unknown(path, "column", column, COLUMNS)
    if missing := [column for column in _REQUIRED if column not in columns]:
        raise InputError(
            f"{path}: the column {missing[0]!r} is missing.", f"The first line names the columns: {','.join(COLUMNS)}."
        )
    reader.fieldnames = columns
    frames: dict[int | None, dict[str, tuple[float, float, float]]] = {}
    names: dict[str, None] = {}
    for row in reader:
        place = f"{path}, line {reader.line_num}"
        if None in row or None in row.values():
            raise InputError(f"{place}: it does not have {len(columns)} values.", f"Columns: {','.join(columns)}.")
        name = row["name"].strip()
        if not name:
            raise InputError(f"{place}: the joint has no name.", "Each line is one joint of one frame.")
        frame = _frame_number(row["frame"], place) if "frame" in columns else None
        points = frames.setdefault(frame, {})
        if name in points:
            raise InputError(f"{place}: {name!r} stands twice in one frame.", "Keep one of the two lines.")
        points[name] = (_number(row, "x", place), _number(row, "y", place), _number(row, "confidence", place))
        names[name] = None
    return [Pose(keypoints_of(points, list(names), (), path), frame) for frame, points in frames.items()]


def _frame_number(text: str, place: str) -> int:
    """A frame number, from 0."""
    if not text.strip().isdecimal():
        raise InputError(f"{place}: the frame is {text!r}.", "Frames are whole numbers, from 0.")
    return int(text)


def _number(row: Mapping[str, str], column: str, place: str) -> float:
    """A coordinate (empty: absent) or a confidence (empty or no such column: 1)."""
    text = row.get(column, "").strip()
    if not text:
        return 1.0 if column == "confidence" else float("nan")
    try:
        return float(text)
    except ValueError as error:
        raise InputError(f"{place}: {column} is {text!r}, not a number.", "Leave it empty where absent.") from error


class CsvEncoder:
    """The text of a file, piece by piece; an absent joint has empty x and y and confidence 0."""

    def begin(self, keypoints: Keypoints, size: tuple[int, int]) -> str:
        """The line of column names: CSV has no place for the skeleton and the size."""
        return ",".join(COLUMNS) + "\n"

    def frame(self, prediction: Prediction, keypoints: Keypoints) -> str:
        """The lines of one frame."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        for name, (x, y), confidence, present in zip(
            keypoints.names, keypoints.positions, keypoints.confidence, keypoints.present, strict=True
        ):
            place = (shortest(x), shortest(y), shortest(confidence)) if present else ("", "", 0.0)
            writer.writerow((prediction.index, name, *place))
        return text.getvalue()

    separator = ""

    def end(self) -> str:
        """Nothing follows the last line."""
        return ""
