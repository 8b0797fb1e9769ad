"""The project's own keypoint JSON (described in `files.py`)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt, ValidationError

from propagate.errors import InputError
from propagate.formats.keypoints.poses import FORMATS, Encoder, Points, Pose, invalid, keypoints_of, unknown
from propagate.printable import printable
from propagate.types import Keypoints, Prediction


class _Frame(BaseModel):
    model_config = ConfigDict(extra="forbid")

    frame: NonNegativeInt
    name: str | None = None
    time_s: float | None = None
    points: dict[str, list[float | None] | None]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: Literal[1] = 1
    width: PositiveInt | None = None
    height: PositiveInt | None = None
    names: list[str]
    skeleton: list[tuple[str, str]] = []
    frames: list[_Frame]


_KNOWN = {"": tuple(_File.model_fields), "frames": tuple(_Frame.model_fields)}


def poses_of_json(document: object, path: Path) -> list[Pose]:
    """Return the poses of a parsed file, one for each entry of `frames`; InputError for unknown or missing keys."""
    try:
        file = _File.model_validate(document)
    except ValidationError as error:
        raise invalid(path, error, _KNOWN, document) from error
    names = file.names
    if len(set(names)) < len(names):
        raise InputError(f"{path}: a joint is named twice in 'names'.", "Give each joint a name of its own.")
    for name in (name for bone in file.skeleton for name in bone):
        if name not in names:
            raise unknown(path, "joint in 'skeleton'", name, names)
    skeleton = [(names.index(start), names.index(end)) for start, end in file.skeleton]
    if (file.width is None) != (file.height is None):
        raise InputError(f"{path} gives one of 'width' and 'height'.", "Give both, or neither.")
    size = None if file.height is None or file.width is None else (file.height, file.width)
    poses = []
    for entry in file.frames:
        points = dict(_points(entry, names, path))
        poses.append(Pose(keypoints_of(points, names, skeleton, path), entry.frame, size=size, picture=entry.name))
    return poses


def _points(entry: _Frame, names: list[str], path: Path) -> Iterator[tuple[str, tuple[float, float, float]]]:
    """Yield name and (x, y, confidence) of the joints of a frame that are not null."""
    for name, point in entry.points.items():
        if name not in names:
            raise unknown(path, f"joint in frame {entry.frame}", name, names)
        if point is None:
            continue
        if len(point) not in (2, 3):
            raise InputError(
                f"{path}: {name!r} in frame {entry.frame} has {len(point)} numbers.",
                f"A point is [x, y], [x, y, confidence] or null. {FORMATS}",
            )
        x, y, confidence = (float("nan") if number is None else number for number in (*point, 1.0)[:3])
        yield name, (x, y, confidence)


class JsonEncoder(Encoder):
    """See `Encoder`. Writes one line for each frame."""

    def begin(self, keypoints: Keypoints, size: tuple[int, int]) -> str:
        """Return the text before the first frame."""
        height, width = size
        names = list(keypoints.names)
        head: dict[str, Any] = {
            "version": 1,
            "width": width,
            "height": height,
            "names": names,
            "skeleton": [[names[start], names[end]] for start, end in keypoints.skeleton],
        }
        lines = [f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in head.items()]
        return "{\n" + ",\n".join(lines) + ',\n"frames": [\n'

    def frame(self, prediction: Prediction, points: Points) -> str:
        """Return one frame."""
        name = {} if prediction.name is None else {"name": printable(prediction.name)}
        entry = {"frame": prediction.index, **name, "time_s": round(prediction.time_s, 6), "points": points}
        return json.dumps(entry, ensure_ascii=False, allow_nan=False)

    def end(self) -> str:
        """Return the text after the last frame."""
        return "\n]\n}\n"
