"""Keypoints as CSV with the columns frame, name, x, y, confidence, as spreadsheets of any country save them."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from propagate.errors import InputError
from propagate.formats.keypoints.poses import Encoder, Points, Pose, keypoints_of, unknown
from propagate.types import Keypoints, Prediction

COLUMNS = ("frame", "name", "x", "y", "confidence")
_REQUIRED = ("name", "x", "y")
_SEPARATORS = (",", ";", "\t", "|")
_DECIMAL = re.compile(r"[+-]?([0-9]+([.,][0-9]*)?|[.,][0-9]+)([eE][+-]?[0-9]{1,3})?")
_THOUSANDS = re.compile(r"[+-]?[0-9]{1,3},[0-9]{3}")
_MISSING = ("", "nan", "na", "null", "none")
_LARGEST_FRAME = 10**9


def poses_of_csv(text: str, path: Path) -> list[Pose]:
    """Return the poses of a file, one for each frame, each with all joints of the file.

    The separator is the one that finds columns in the first line. All numbers or none may have a decimal comma; if the
    comma separates as well, they are in quotes. A first column without a name, pandas' index, is skipped.
    """
    if "\0" in text:
        raise InputError(f"{path} contains null characters: it is not a text file.", "Save it as CSV in UTF-8.")
    lines = re.sub(r"\A([^\S\n]*\n)+", "", io.StringIO(text, newline=None).read()).split("\n")
    if re.fullmatch(r"sep=.", lines[0].strip()):  # a hint for Excel
        del lines[0]
    header = lines[0] if lines else ""
    separator = max(_SEPARATORS, key=lambda sign: len({*_columns(header.split(sign))} & {*COLUMNS}))
    try:
        notes = list[str]()
        return _poses(_rows(lines, separator, path, notes), path, notes)
    except csv.Error as error:
        raise InputError(f"{path} is not CSV: {error}.", f"Columns: {','.join(COLUMNS)}.") from error


def _columns(cells: Sequence[str]) -> list[str]:
    return [cell.strip().strip('"').strip().lower() for cell in cells]


def _rows(lines: Sequence[str], separator: str, path: Path, notes: list[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the place and the cells by column of every non-empty line; append notes about the columns."""
    reader = csv.reader((f"{line}\n" for line in lines), delimiter=separator, skipinitialspace=True)
    columns = _columns(next(reader, []))
    while columns and not columns[-1]:  # spreadsheets end lines with separators
        del columns[-1]
    index = int(columns[:1] in (["unnamed: 0"], [""]))
    if index:
        notes.append(f"{path}: the first column has no name and is left out.")
        del columns[0]
    for column in columns:
        if column not in COLUMNS:
            raise unknown(path, "column", column, COLUMNS)
        if columns.count(column) > 1:
            raise InputError(f"{path}: the column {column!r} appears twice.", "Keep one of them.")
    if missing := [column for column in _REQUIRED if column not in columns]:
        raise InputError(
            f"{path}: the column {missing[0]!r} is missing.", f"The first line names the columns: {','.join(COLUMNS)}."
        )
    for cells in reader:
        if not any(cell.strip() for cell in cells):
            continue
        place = f"{path}, line {reader.line_num}"
        del cells[:index]
        while len(cells) > len(columns) and not cells[-1].strip():
            del cells[-1]
        if len(cells) != len(columns):
            raise InputError(f"{place}: it does not have {len(columns)} values.", f"Columns: {','.join(columns)}.")
        yield place, dict(zip(columns, (cell.strip() for cell in cells), strict=True))


def _poses(rows: Iterator[tuple[str, dict[str, str]]], path: Path, notes: list[str]) -> list[Pose]:
    frames: dict[int | None, dict[str, tuple[float, float, float]]] = {}
    names: dict[str, None] = {}
    signs: set[str] = set()  # of decimals
    grouped: dict[bool, str] = {}  # whether a number with a comma may be thousands -> the first one
    for place, row in rows:
        signs |= {sign for cell in ("x", "y", "confidence") for sign in ".," if sign in row.get(cell, "")}
        if len(signs) > 1:
            raise InputError(
                f"{place}: numbers have decimal points and decimal commas.", "Write all of them with a point."
            )
        name = row["name"]
        if not name:
            raise InputError(f"{place}: the joint has no name.", "Each line is one joint of one frame.")
        text, frame = row.get("frame"), None
        if text is not None:  # tables of numbers may have 7.0
            if not re.fullmatch(r"[0-9]{1,10}(\.0*)?", text) or float(text) > _LARGEST_FRAME:
                raise InputError(f"{place}: the frame is {_short(text)!r}.", "Frames are whole numbers, from 0.")
            frame = int(float(text))
        points = frames.setdefault(frame, {})
        if name in points:
            raise InputError(f"{place}: {name!r} appears twice in one frame.", "Keep one of the two lines.")
        for cell in ("x", "y"):
            if "," in row[cell]:
                grouped.setdefault(_THOUSANDS.fullmatch(row[cell]) is not None, row[cell])
        x, y, confidence = (_number(row, column, place) for column in ("x", "y", "confidence"))
        if (x == x) != (y == y):
            raise InputError(f"{place}: {name!r} has one of x and y.", "Give both, or leave both empty: absent.")
        if x == x and confidence != confidence:
            shown = row["confidence"]
            raise InputError(f"{place}: confidence is {shown!r}, not a number.", "Leave the cell empty for 1.")
        points[name] = (x, y, confidence)
        names[name] = None
    if True in grouped and False not in grouped:
        notes.append(f"{path}: {grouped[True]} is read with a decimal comma, as {grouped[True].replace(',', '.')}.")
    return [
        Pose(keypoints_of(points, list(names), (), path), frame, notes=tuple(notes)) for frame, points in frames.items()
    ]


def _number(row: Mapping[str, str], column: str, place: str) -> float:
    """Return a coordinate (empty: NaN) or a confidence (empty or without a column: 1; such as "nan": NaN)."""
    text = row.get(column, "")
    if column == "confidence" and not text:
        return 1.0
    if text.lower() in _MISSING:
        return math.nan
    if len(text) > 100 or not _DECIMAL.fullmatch(text):
        raise InputError(f"{place}: {column} is {_short(text)!r}, not a number.", "Leave it empty where absent.")
    return float(text.replace(",", "."))


def _short(text: str) -> str:
    return text if len(text) <= 20 else f"{text[:20]}..."


class CsvEncoder(Encoder):
    """See `Encoder`. An absent joint has empty x and y and confidence 0; there is no skeleton and no size."""

    separator = ""

    def begin(self, keypoints: Keypoints, size: tuple[int, int]) -> str:
        """Return the line of column names."""
        return ",".join(COLUMNS) + "\n"

    def frame(self, prediction: Prediction, points: Points) -> str:
        """Return the lines of one frame."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows((prediction.index, name, *(point or ("", "", 0.0))) for name, point in points.items())
        return text.getvalue()

    def end(self) -> str:
        """Return no text."""
        return ""
