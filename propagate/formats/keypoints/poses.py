"""Types and errors that all keypoint formats share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from pydantic import ValidationError

from propagate.errors import InputError
from propagate.types import Keypoints, Prediction

_FAR = 1e6  # pixels; no picture is wider
FORMATS = "The formats are described in propagate/formats/keypoints/reading.py."

Points = Mapping[str, tuple[float, float, float] | None]  # rounded x, y, confidence by joint; None: absent


class Encoder(Protocol):
    """The text of a keypoint file, piece by piece: `begin`, `frame`s joined by `separator`, `end`."""

    separator: str = ",\n"

    def begin(self, keypoints: Keypoints, size: tuple[int, int]) -> str: ...  # noqa: D102
    def frame(self, prediction: Prediction, points: Points) -> str: ...  # noqa: D102
    def end(self) -> str: ...  # noqa: D102


@dataclass(frozen=True, eq=False)
class Pose:
    """The keypoints of one instance in one frame."""

    keypoints: Keypoints  # all joints of the file, absent ones included
    frame: int | None  # None: the file contains one picture without a number
    instance: int | str | None = None  # such as the id of the COCO annotation
    size: tuple[int, int] | None = None  # (height, width) of the annotated picture
    picture: str | None = None  # name of the annotated picture, without suffix
    crowd: bool = False  # a group, not one instance (COCO's `iscrowd`)
    notes: tuple[str, ...] = ()  # sentences for the user about how it was read


def keypoints_of(
    points: Mapping[str, tuple[float, float, float]],
    names: Sequence[str],
    skeleton: Iterable[tuple[int, int]],
    path: Path,
) -> Keypoints:
    """Return keypoints from (x, y, confidence) in pixels by name; joints without an entry or with NaN are absent.

    `names` are all joints in order, `skeleton` has pairs of joint numbers from 0. InputError for a confidence outside
    [0, 1], x without y, a position far outside any picture, or an error of `Keypoints`.
    """
    positions = np.full((len(names), 2), np.nan, np.float32)
    confidence = np.zeros(len(names), np.float32)
    for number, name in enumerate(names):
        x, y, certainty = points.get(name, (np.nan, np.nan, 0.0))
        if np.isnan(x) and np.isnan(y):
            continue
        if not (abs(x) <= _FAR and abs(y) <= _FAR):  # NaN, too
            raise InputError(
                f"{path}: the position of {name!r} is ({x}, {y}).", "Give both x and y in pixels, or neither: absent."
            )
        if not 0 <= certainty <= 1:
            raise InputError(f"{path}: the confidence of {name!r} is {certainty}.", "It must lie in 0 to 1.")
        positions[number], confidence[number] = (x, y), certainty
    try:
        return Keypoints(positions, tuple(names), tuple(skeleton), confidence)
    except InputError as error:
        raise InputError(f"{path}: {error.message}", error.remedy) from error


def unknown(path: Path, what: str, name: str, known: Iterable[str]) -> InputError:
    """Return the error for an unknown key, column or joint (`what`), with the nearest known name as a hint."""
    known = list(known)
    folded = {key.lower(): key for key in reversed(known)}
    near = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.5)
    hint = f"Did you mean {folded[near[0]]!r}?" if near else f"Known are {', '.join(map(repr, known))}."
    return InputError(f"{path}: unknown {what}: {name!r}.", hint)


def invalid(path: Path, error: ValidationError, known: Mapping[str, Sequence[str]], document: object) -> InputError:
    """Return the error for a JSON document that pydantic refuses.

    `known` has the keys of each kind of object, by the name of the list it is in; "" for the document itself.
    """
    # An unknown key comes first: the missing one is often the same key, misspelled.
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    place = first["loc"]
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")
    parents = [part for part in place[:-1] if isinstance(part, str)]
    keys = known.get(parents[-1] if parents else "", ())
    if first["type"] == "extra_forbidden":
        return unknown(path, f"key (at {where})", str(place[-1]), keys)
    if first["type"] == "missing":
        present = list(document) if not parents and isinstance(document, dict) else []
        near = difflib.get_close_matches(str(place[-1]), [key for key in present if key not in keys], n=1)
        return InputError(
            f"{path}: the key {where!r} is missing" + (f"; there is {near[0]!r}." if near else "."), FORMATS
        )
    return InputError(f"{path}: {where or 'the file'}: {first['msg']}.", FORMATS)
