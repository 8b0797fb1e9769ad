"""Read keypoint files in three formats, which `writer.py` writes.

Coordinates are those of `propagate.types`: x to the right, y down, (0, 0) the center of the top-left pixel.

The project's own JSON (suffix .json) contains one annotated frame or a whole tracked clip, so that an output can be
the first frame of the next run:

    {
      "version": 1,
      "width": 640, "height": 360,                        optional; checked against the video
      "names": ["nose", "left_ear"],                      all joints, in order
      "skeleton": [["nose", "left_ear"]],                 optional; the bones, by name
      "frames": [
        {"frame": 0, "name": "img_0001", "time_s": 0.0,   number from 0; the picture's name and seconds, optional
         "points": {"nose": [311.5, 92.0, 1.0],           x, y in pixels; confidence 0 to 1, optional (1)
                    "left_ear": null}}                    absent; the same as without an entry
      ]
    }

COCO keypoints (`images`, `annotations`, `categories`; see `coco.py`), also .json, recognized by its keys.

CSV (suffix .csv) with the columns `frame,name,x,y,confidence` and a line for each joint; `frame`, for one frame, and
`confidence` are optional; empty x and y: absent. It has no skeleton. The separator may be a comma, semicolon, tab or
bar, and numbers may have decimal commas.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from propagate.errors import InputError
from propagate.files.documents import parse_json, read_text
from propagate.formats.keypoints.coco import TOP_KEYS, poses_of_coco
from propagate.formats.keypoints.csv import poses_of_csv
from propagate.formats.keypoints.json import poses_of_json
from propagate.formats.keypoints.poses import FORMATS, Pose
from propagate.printable import printable
from propagate.types import Keypoints

_SHOWN = 12
_WEAK = 0.1


@dataclass(frozen=True, eq=False)
class KeypointsFile:
    """Keypoints of one frame, and sentences for the user about the file."""

    keypoints: Keypoints
    notes: tuple[str, ...] = ()


def read_keypoints(
    path: str | Path,
    *,
    frame_size: tuple[int, int] | None = None,
    frame: int | None = None,
    instance: int | str | None = None,
) -> Keypoints:
    """Read the keypoints of one frame. `read_keypoints_file` returns notes, too.

    Args:
        path: JSON (ours or COCO) or CSV, recognized by suffix and content.
        frame_size: (height, width) in pixels. Joints outside are marked absent; another size in the file is an error.
        frame: number of the frame, from 0; None: the file contains one.
        instance: the instance, if the frame has several: the id of the COCO annotation, as a number or text.

    Raises:
        InputError: unreadable, unknown keys, another frame size, a missing frame, several frames or instances without
            a choice, or no joint that is present.
    """
    return read_keypoints_file(path, frame_size=frame_size, frame=frame, instance=instance).keypoints


def read_keypoints_file(
    path: str | Path,
    *,
    frame_size: tuple[int, int] | None = None,
    frame: int | None = None,
    instance: int | str | None = None,
    picture: str | None = None,
    alone: bool = False,
) -> KeypointsFile:
    """Read the keypoints of one frame with notes. Arguments and errors as `read_keypoints`.

    Args:
        path, frame_size, frame, instance: see `read_keypoints`.
        picture: name of the annotated picture, without suffix. A frame of this name in the file overrides `frame`.
        alone: `frame` is a default: refuse a file with other frames as well, since they would be lost.
    """
    path = Path(path)
    text = read_text(path, "keypoints file")
    by_content = READERS[".json" if text.lstrip()[:1] in ("{", "[") else ".csv"]
    poses = READERS.get(path.suffix.lower(), by_content)(text, path)
    crowds = sum(pose.crowd for pose in poses)
    poses = [pose for pose in poses if not pose.crowd]
    if not poses:
        raise InputError(f"{path} holds no keypoints{' but those of crowds' if crowds else ''}.", FORMATS)
    picture = None if picture is None else printable(picture)
    frame = next((pose.frame for pose in poses if pose.picture == picture is not None), frame)
    pose = _chosen(poses, path, frame, instance, alone)
    notes = [f"{path}: {crowds} annotations of crowds were left out."] if crowds else []
    notes += pose.notes
    if picture is not None and pose.picture not in (None, picture):
        notes.append(f"{path}: the annotated picture is {pose.picture}, but the frame is {picture}.")
    if unused := sorted({other.frame for other in poses if other.frame not in (None, pose.frame)}):
        notes.append(f"{path}: frame {pose.frame} is used; other frames of the file are not: {_listed(unused)}.")
    keypoints = pose.keypoints
    if frame_size is not None:
        if pose.size is not None and pose.size != frame_size:
            raise InputError(
                f"{path} was annotated on {pose.size[1]}x{pose.size[0]} pixels, but the frame is "
                f"{frame_size[1]}x{frame_size[0]}.",
                "Annotate a frame of this video, or scale the coordinates and the size in the file.",
            )
        outside = keypoints.outside(frame_size)
        if outside.any():
            positions = np.where(outside[:, None], np.float32(np.nan), keypoints.positions)
            confidence = np.where(outside, np.float32(0), keypoints.confidence)
            keypoints = Keypoints(positions, keypoints.names, keypoints.skeleton, confidence)
            notes.append(
                f"{path}: outside the {frame_size[1]}x{frame_size[0]} frame and therefore marked absent: "
                f"{_names(keypoints, outside)}."
            )
    if not keypoints.present.any():
        cause = " ".join((f"{path}: no joint is inside the frame.", *pose.notes))
        raise InputError(cause, "At least one joint must be placed in it.")
    weak = keypoints.present & (keypoints.confidence < _WEAK)
    if weak.any():
        notes.append(f"{path}: confidence below {_WEAK}, and carried like the others: {_names(keypoints, weak)}.")
    placed = keypoints.positions[keypoints.present]
    if frame_size is not None and min(frame_size) > 2 and ((placed >= 0) & (placed <= 1)).all():
        notes.append(
            f"{path}: all coordinates lie in 0 to 1, in a frame of {frame_size[1]}x{frame_size[0]} pixels. They are "
            "taken as pixels; if they are shares of the frame, multiply x by its width and y by its height."
        )
    return KeypointsFile(keypoints, tuple(notes))


def _poses_of_document(text: str, path: Path) -> list[Pose]:
    document = parse_json(text, f"The keypoints file {path}", any_number=True)
    if isinstance(document, dict) and any(key in document for key in TOP_KEYS):
        return poses_of_coco(document, path)
    if isinstance(document, list):
        raise InputError(f"{path} is a list (COCO results?), which has no joint names.", FORMATS)
    return poses_of_json(document, path)


# suffix -> reader: (text, path) -> all poses of the file
READERS: dict[str, Callable[[str, Path], list[Pose]]] = {".csv": poses_of_csv, ".json": _poses_of_document}


def _chosen(poses: Sequence[Pose], path: Path, frame: int | None, instance: int | str | None, alone: bool) -> Pose:
    numbers = sorted({pose.frame for pose in poses if pose.frame is not None})
    if len(numbers) > 1 and (frame is None or (alone and frame in numbers)):
        raise InputError(
            f"{path} holds {len(numbers)} annotated frames: {_listed(numbers)}. One is used.",
            f"Say which: --keypoints-frame {numbers[0]} of `propagate track`, frame={numbers[0]} in Python, or keep "
            "one in the file.",
        )
    of_frame = [pose for pose in poses if pose.frame is None or frame is None or pose.frame == frame]
    if not of_frame:
        raise InputError(
            f"{path} holds no keypoints of frame {frame}.",
            f"It has frame {_listed(numbers)}: start there with --from-frame, or take it for the first frame with "
            "--keypoints-frame.",
        )
    known = [pose.instance for pose in of_frame if pose.instance is not None]
    if instance is not None:
        of_frame = [pose for pose in of_frame if str(pose.instance) == str(instance)]
        if not of_frame:
            raise InputError(f"{path} holds no instance {instance}.", f"It has {_listed(known) or 'none with an id'}.")
    if len(of_frame) > 1:
        place = "" if frame is None else f" in frame {frame}"
        ids = f": {_listed(known)}" if known else ""
        raise InputError(
            f"{path} holds {len(of_frame)} instances{place}{ids}.",
            f"One is carried at a time: choose it with --instance {known[0]} of `propagate track`, "
            f"instance={known[0]!r} in Python, or keep one in the file."
            if len(set(map(str, known))) > 1
            else "One is carried at a time: keep one in the file.",
        )
    return of_frame[0]


def _names(keypoints: Keypoints, chosen: np.ndarray) -> str:
    return ", ".join(keypoints.names[i] for i in np.flatnonzero(chosen))


def _listed(numbers: Sequence[int | str]) -> str:
    more = f" and {len(numbers) - _SHOWN} more" if len(numbers) > _SHOWN else ""
    return ", ".join(map(str, numbers[:_SHOWN])) + more
