"""BADJA's files, and the DAVIS tree they refer to.

    BADJA/joint_annotations/NAME.json             annotated frames: `image_path`, `joints`, `visibility`
    DAVIS/JPEGImages/480p/NAME/00000.jpg          all frames
    DAVIS/Annotations/480p/NAME/00000.png         masks of the annotated frames; others are ignored

`joints` are 37 pairs (row, column) in pixels of a 1920 x 1080 frame, DAVIS's full resolution; (0, 0) is missing.
`visibility` marks visible joints; some invisible ones have an estimated position. Only 20 of the 37 belong to BADJA's
joint catalog.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from propagate.benchmarks.benchmark import Clip
from propagate.benchmarks.davis.tree import FOLDERS
from propagate.benchmarks.poses import PoseSequence
from propagate.benchmarks.scoring import listed, suggest_folder
from propagate.errors import InputError, UsageError
from propagate.files.documents import read_json
from propagate.files.names import is_plain_name, reading
from propagate.formats import read_mask
from propagate.geometry import pixels_to_grid
from propagate.settings import nearest
from propagate.video.folder import read_header

SEQUENCES = ("bear", "camel", "cows", "dog", "dog-agility", "horsejump-high", "horsejump-low")
"""The videos of BADJA with frames in DAVIS, which the point-tracking literature scores."""

# BADJA's catalog: number in `joints` -> name. Upper legs are front legs, lower ones hind legs. The comments in BADJA's
# code swap the ears.
CATALOG = {
    **{8: "upper_right_1", 9: "upper_right_2", 10: "upper_right_3"},
    **{12: "upper_left_1", 13: "upper_left_2", 14: "upper_left_3"},
    **{15: "neck_lower"},
    **{18: "lower_right_1", 19: "lower_right_2", 20: "lower_right_3"},
    **{22: "lower_left_1", 23: "lower_left_2", 24: "lower_left_3"},
    **{25: "tail_0", 28: "tail_3", 31: "tail_6"},
    **{32: "jaw", 33: "nose", 35: "right_ear", 36: "left_ear"},
}
JOINTS = tuple(CATALOG.values())
_BONES = (
    *((8, 9), (9, 10), (12, 13), (13, 14), (15, 8), (15, 12)),
    *((18, 19), (19, 20), (22, 23), (23, 24), (25, 18), (25, 22)),
    *((15, 25), (25, 28), (28, 31)),
    *((15, 32), (32, 33), (33, 35), (33, 36)),
)
SKELETON = tuple((list(CATALOG).index(start), list(CATALOG).index(end)) for start, end in _BONES)

FULL_SIZE = (1080, 1920)
_ANNOTATIONS = "joint_annotations"
_ALL = 37
_DIGITS = 5  # of a frame's number in DAVIS; a longer one would ask for millions of pictures
_FARTHEST = 10 * max(FULL_SIZE)  # pixels from the corner; a position beyond is damaged


class _Annotated(BaseModel):
    """An annotated frame; other keys are ignored."""

    image_path: str
    joints: Annotated[list[tuple[float, float]], Field(min_length=_ALL, max_length=_ALL)]
    visibility: Annotated[list[bool], Field(min_length=_ALL, max_length=_ALL)]


_File = TypeAdapter(list[_Annotated])


@dataclass(frozen=True, eq=False)
class BadjaSequence(PoseSequence):
    """A video from its first to its last annotated frame."""

    # (A,) int64, positions of the annotated frames in the clip, ascending; the first is 0
    annotated: Int64[ndarray, " a"]
    joints: Float64[ndarray, "a 20 2"]  # (A, 20, 2) float64, (x, y) in pixels of the frames; NaN where missing
    visible: Bool[ndarray, "a 20"]  # (A, 20) bool: the joint has a position and is visible
    areas: Int64[ndarray, " a"]  # (A,) int64, pixels of the mask
    objects: int  # number of ids in the masks


def read_badja(data: Path, davis: Path, resolution: str, sequences: Sequence[str] = ()) -> tuple[BadjaSequence, ...]:
    """Read and verify the videos in the order of `SEQUENCES`.

    Args:
        data: folder with `joint_annotations`.
        davis: folder with `JPEGImages` and `Annotations`.
        resolution: subfolder of both ("480p", "Full-Resolution").
        sequences: names of videos; empty: all that have annotations.

    Raises:
        InputError: files are missing or cannot be read; the message names all of them.
        UsageError: a sequence is not in `SEQUENCES`, or the resolution is not a plain name.
    """
    for name in sequences:
        if name not in SEQUENCES:
            raise UsageError(f"--sequence {name}: not a video of BADJA in DAVIS.", nearest(name, SEQUENCES))
    if not is_plain_name(resolution):
        raise UsageError(f"--resolution {resolution}: not the name of a folder.", "Give 480p or Full-Resolution.")
    folder = data / _ANNOTATIONS
    with reading(data):
        _check_folders(data, davis)
    names = [name for name in SEQUENCES if name in sequences or (not sequences and (folder / f"{name}.json").exists())]
    if not names:
        raise InputError(f"{folder} has none of {', '.join(SEQUENCES)} (.json).", "Give BADJA's folder with --data.")
    found, faults = [], []
    for name in names:
        try:
            with reading(davis):
                found.append(_read_sequence(folder / f"{name}.json", davis, resolution, name))
        except InputError as error:
            faults.append(f"{name}: {error.message.rstrip('.')}")
    if faults:
        raise InputError(
            f"{len(faults)} of {len(names)} BADJA videos are not usable: {'; '.join(faults)}.",
            "Complete the DAVIS tree, or select complete videos with --sequence.",
        )
    return tuple(found)


def _check_folders(data: Path, davis: Path) -> None:
    """Check that the folders are those of BADJA and DAVIS; errors suggest the folders that were probably meant."""
    is_badja, is_davis = (data / _ANNOTATIONS).is_dir(), any((davis / name).is_dir() for name in FOLDERS)
    if not is_badja and (davis / _ANNOTATIONS).is_dir() and any((data / name).is_dir() for name in FOLDERS):
        raise InputError(f"--davis {davis} holds BADJA's {_ANNOTATIONS}.", "Swap the folders of --data and --davis.")
    if not is_badja:
        raise InputError(
            f"--data {data} is not BADJA's folder: it has no folder {_ANNOTATIONS}.",
            suggest_folder(data, (_ANNOTATIONS,), "--data") or "Give BADJA's folder with --data.",
        )
    if not is_davis:
        raise InputError(
            f"--davis {davis} is not a DAVIS tree: it has neither {' nor '.join(FOLDERS)}.",
            suggest_folder(davis, FOLDERS, "--davis") or f"Give the folder that holds {' and '.join(FOLDERS)}.",
        )


def _read_sequence(path: Path, davis: Path, resolution: str, name: str) -> BadjaSequence:
    entries = _read_annotations(path)
    numbers = sorted(entries)
    images, masks = (davis / folder / resolution / name for folder in FOLDERS)
    every = range(numbers[0], numbers[-1] + 1)
    if missing := [*_missing_files(images, every, ".jpg"), *_missing_files(masks, numbers, ".png")]:
        raise InputError(f"missing {listed(missing)}")
    pictures = tuple(images / f"{number:05d}.jpg" for number in every)
    (width, height), _ = read_header(pictures[0])
    size = height, width
    joints, visible = _joints([entries[number] for number in numbers], size)
    areas, objects = zip(*(_read_area(masks / f"{number:05d}.png", size) for number in numbers), strict=True)
    annotated = np.array(numbers, np.int64) - numbers[0]
    clip = Clip(name, pictures)
    return BadjaSequence(clip, size, annotated, joints, visible, np.array(areas, np.int64), max(objects))


def _read_annotations(path: Path) -> dict[int, _Annotated]:
    try:
        entries = _File.validate_python(read_json(path, "file of joints"))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise InputError(f"{path} is not a list of annotated frames: {place or 'the file'}: {first['msg']}.") from error
    by_number = {}
    for entry in entries:
        stem = Path(entry.image_path).stem
        if not stem.isdecimal() or len(stem) > _DIGITS or int(stem) in by_number:
            raise InputError(f"{path} names the frame {entry.image_path[:80]!r}: not a number, or a repeated one.")
        by_number[int(stem)] = entry
    if len(by_number) < 2:
        raise InputError(f"{path} has {len(by_number)} annotated frames: none can be scored after the first.")
    return by_number


def _missing_files(folder: Path, numbers: Iterable[int], suffix: str) -> list[Path]:
    if not folder.is_dir():
        return [folder]
    return [path for path in (folder / f"{number:05d}{suffix}" for number in numbers) if not path.is_file()]


def _joints(
    entries: Sequence[_Annotated], size: tuple[int, int]
) -> tuple[Float64[ndarray, "a 20 2"], Bool[ndarray, "a 20"]]:
    """Return positions in pixels of the frames, and visible joints."""
    height, width = size
    if abs(round(height * FULL_SIZE[1] / FULL_SIZE[0]) - width) > 1:
        raise InputError(f"the frames are {width}x{height}, but the joints are annotated on frames of 16:9")
    numbers = list(CATALOG)
    rows_columns = np.array([entry.joints for entry in entries], np.float64)[:, numbers]
    if np.abs(rows_columns).max() > _FARTHEST:
        raise InputError("joints lie far outside of the frames")
    present: Bool[ndarray, "a 20"] = np.any(rows_columns != 0, axis=2)
    points = pixels_to_grid(rows_columns[..., ::-1].reshape(-1, 2), FULL_SIZE, size).reshape(rows_columns.shape)
    visible: Bool[ndarray, "a 20"] = np.array([entry.visibility for entry in entries], np.bool_)[:, numbers]
    return np.where(present[:, :, None], points, np.nan), visible & present


def _read_area(path: Path, size: tuple[int, int]) -> tuple[int, int]:
    """Return the number of object pixels and of objects."""
    mask = read_mask(path)
    if mask.size != size:
        raise InputError(f"{path} is {mask.size[1]}x{mask.size[0]}, the frames are {size[1]}x{size[0]}.")
    return int(np.count_nonzero(mask.ids)), len(mask.objects)
