"""One annotated or predicted pose of a keypoint file, whatever the format; and the errors the formats share."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from propagate.errors import InputError
from propagate.types import Keypoints

_FAR = 1e6  # pixels; no picture is wider
FORMATS = "The formats are described in propagate/formats/keypoints/files.py."


Number = Callable[[np.float32], float]


@dataclass(frozen=True, eq=False)
class Pose:
    """The keypoints of one instance in one frame.

    Attributes:
        keypoints: all joints of the file, absent ones included.
        frame: number of the frame, None where the file holds one picture and does not say.
        instance: what tells several instances in one frame apart (COCO: the annotation's id).
        picture: name of the picture it was annotated on, without suffix, where the file says.
        crowd: it stands for a group, not for one instance (COCO's `iscrowd`).
        notes: what is to be said of how it was read, each a sentence.
        size: (height, width) of the frame it was annotated on, None where the file does not say.
    """

    keypoints: Keypoints
    frame: int | None
    instance: int | str | None = None
    size: tuple[int, int] | None = None
    picture: str | None = None
    crowd: bool = False
    notes: tuple[str, ...] = ()


def keypoints_of(
    points: Mapping[str, tuple[float, float, float]],
    names: Sequence[str],
    skeleton: Iterable[tuple[int, int]],
    path: Path,
) -> Keypoints:
    """Keypoints from (x, y, confidence) by name; a joint without an entry, or with a NaN position, is absent.

    Args:
        points: x, y in pixels.
        names: of all joints, in order.
        skeleton: pairs of joint numbers, from 0.
        path: for messages.

    Raises:
        InputError: a confidence outside [0, 1], x without y, a position that is in no picture, or what `Keypoints`
            refuses.
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
    """The error for a key, column or joint that the file should not have, with the nearest one it may have.

    Args:
        path: the file.
        what: what it is and where ("key", "joint in the skeleton").
        name: as it was found.
        known: what could stand there.
    """
    known = list(known)
    folded = {key.lower(): key for key in reversed(known)}
    near = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.5)
    hint = f"Did you mean {folded[near[0]]!r}?" if near else f"Known are {', '.join(map(repr, known))}."
    return InputError(f"{path}: unknown {what}: {name!r}.", hint)


def invalid(path: Path, error: ValidationError, known: Mapping[str, Sequence[str]], document: object) -> InputError:
    """The first thing wrong with a JSON document, as a sentence.

    Args:
        path: the file.
        error: what pydantic found.
        known: the keys of each kind of object, by the name of the list it stands in; "" for the document itself.
        document: the parsed JSON.
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


def in_pixels(value: np.float32) -> float:
    """Return a coordinate to 0.01 pixels: finer digits are noise."""
    return round(float(value), 2) + 0.0  # -0.0 becomes 0.0


def as_share(value: np.float32) -> float:
    """Return a confidence to four digits."""
    return round(float(value), 4)


def shortest(value: np.float32) -> float:
    """Return the number with the fewest digits that reads back as the same float32: 0.1, not 0.10000000149."""
    return float(str(value))
