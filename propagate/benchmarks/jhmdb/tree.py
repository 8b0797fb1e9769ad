"""JHMDB's files: the lists of a split, the pictures and the joint positions.

    splits/CLASS_test_split1.txt                          lines `VIDEO.avi K`; K = 2 is a test clip
    Rename_Images/CLASS/VIDEO/00001.png ...               frames, numbered from 1
    joint_positions/CLASS/VIDEO/joint_positions.mat       `pos_img` (2, 15, T): x and y in pixels counted from 1

Frames beyond the last pose are ignored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from io import BytesIO
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float64
from numpy import ndarray
from scipy.io import savemat

from propagate.benchmarks.benchmark import Clip
from propagate.benchmarks.jhmdb.matlab_file import read_numbers
from propagate.benchmarks.poses import PoseSequence
from propagate.benchmarks.scoring import listed, suggest_folder
from propagate.errors import InputError, UsageError
from propagate.files.atomic import atomic_path
from propagate.files.documents import read_text
from propagate.files.names import is_plain_name, reading
from propagate.video.folder import read_header

JOINTS = (
    *("neck", "belly", "face", "right_shoulder", "left_shoulder", "right_hip", "left_hip"),
    *("right_elbow", "left_elbow", "right_knee", "left_knee"),
    *("right_wrist", "left_wrist", "right_ankle", "left_ankle"),
)
SKELETON = (
    *((0, 2), (0, 1), (0, 3), (0, 4), (1, 5), (1, 6)),
    *((3, 7), (7, 11), (4, 8), (8, 12)),
    *((5, 9), (9, 13), (6, 10), (10, 14)),
)
MATLAB_FILE = "joint_positions.mat"
_FARTHEST = 10  # times the picture's longer side from its corner; a true position beyond is damaged
_TEST = "2"
_SOURCE = "Download the missing files from jhmdb.is.tue.mpg.de, or select complete clips with --sequence."
# The first 116 bytes of a .mat file are free text. scipy writes the date there, so equal files would differ.
_HEADER = b"MATLAB 5.0 MAT-file, joint positions in pixels counted from 1".ljust(116)


@dataclass(frozen=True, eq=False)
class JhmdbSequence(PoseSequence):
    """A test clip, named CLASS/VIDEO."""

    # (T, 15, 2) float64, (x, y) in pixels counted from 0; may lie outside of the picture
    truth: Float64[ndarray, "t 15 2"]


def read_jhmdb(data: Path, split: int, sequences: Sequence[str] = ()) -> tuple[JhmdbSequence, ...]:
    """Read and verify the test clips of a split, sorted by class, in the order of the lists.

    Args:
        data: folder with `splits`, `Rename_Images` and `joint_positions`.
        split: 1, 2 or 3.
        sequences: CLASS/VIDEO or VIDEO; empty: all.

    Raises:
        InputError: files are missing or cannot be read; the message names all of them.
        UsageError: a sequence is not in the lists.
    """
    with reading(data):
        names = _select(_test_clips(data, split), sequences)
    found, faults = [], []
    for name in names:
        try:
            with reading(data):
                found.append(_read_sequence(data, name))
        except InputError as error:
            faults.append(error.message.rstrip("."))
    if faults:
        raise InputError(f"{len(faults)} of {len(names)} JHMDB clips are not usable: {listed(faults, '; ')}.", _SOURCE)
    return tuple(found)


def read_pos_img(path: Path) -> Float64[ndarray, "t 15 2"]:
    """Read true or predicted joint positions, `pos_img` of a .mat file: (x, y) in pixels counted from 0."""
    array = read_numbers(path, "pos_img")
    if array.ndim != 3 or array.shape[:2] != (2, len(JOINTS)):
        raise InputError(f"pos_img in {path} is {array.dtype} {array.shape}, not numbers (2, {len(JOINTS)}, T).")
    return array.transpose(2, 1, 0).astype(np.float64) - 1


def write_pos_img(path: Path, positions: Float[ndarray, "t 15 2"]) -> None:
    """Write joint positions atomically; the inverse of `read_pos_img`. Lost joints are NaN."""
    buffer = BytesIO()
    savemat(buffer, {"pos_img": positions.astype(np.float64).transpose(2, 1, 0) + 1})
    with atomic_path(path) as temporary:
        temporary.write_bytes(_HEADER + buffer.getvalue()[len(_HEADER) :])


def _test_clips(data: Path, split: int) -> list[str]:
    suffix = f"_test_split{split}.txt"
    lists = {path.name.removesuffix(suffix): path for path in _visible(data / "splits") if path.name.endswith(suffix)}
    if wrong := [path.name for kind, path in lists.items() if not is_plain_name(kind)]:
        raise InputError(f"{data / 'splits'} has a file whose name is not UTF-8: {listed(wrong)}.", "Rename it.")
    folders = [*_visible(data / "Rename_Images"), *_visible(data / "joint_positions")]
    without = sorted({folder.name for folder in folders if folder.is_dir()} - set(lists))
    if not lists or without:
        missing = [f"{name}{suffix}" for name in without] or [f"CLASS{suffix}"]
        other = "" if (data / "splits").is_dir() else suggest_folder(data, ("splits", "joint_positions"), "--data")
        raise InputError(f"{data / 'splits'} lacks {listed(missing)}.", other or _SOURCE)
    names = [f"{kind}/{video}" for kind in sorted(lists) for video in _test_videos(lists[kind])]
    if not names:
        raise InputError(f"The lists {data / 'splits'}/*{suffix} name no test clip.", _SOURCE)
    return names


def _test_videos(path: Path) -> Iterator[str]:
    seen = set()
    for number, line in enumerate(map(str.strip, read_text(path, "list").splitlines()), 1):
        if not line:
            continue
        video, _, kind = line.rpartition(" ")
        name = video.strip().removesuffix(".avi")
        if not is_plain_name(name) or kind not in ("0", "1", _TEST) or name in seen:
            fault = "repeats a video" if name in seen else "is not `VIDEO.avi K` with K = 0, 1 or 2"
            raise InputError(f"Line {number} of {path} {fault}: {line[:80]!r}.", "Use the list of the data set.")
        seen.add(name)
        if kind == _TEST:
            yield name


def _select(names: list[str], sequences: Sequence[str]) -> list[str]:
    videos = {name: name.partition("/")[2] for name in names}
    for sequence in sequences:
        if sequence not in (known := [*names, *videos.values()]):
            near = get_close_matches(sequence, known, n=1)
            hint = f"Did you mean {near[0]}?" if near else "Give CLASS/VIDEO or VIDEO, as in splits."
            raise UsageError(f"--sequence {sequence}: no such clip in the lists of test clips.", hint)
    return [name for name, video in videos.items() if not sequences or name in sequences or video in sequences]


def _read_sequence(data: Path, name: str) -> JhmdbSequence:
    truth = read_pos_img(data / "joint_positions" / name / MATLAB_FILE)
    if not np.isfinite(truth).all():
        raise InputError(f"pos_img of {name} has positions that are not finite.")
    if len(truth) < 2:
        raise InputError(f"{name} has {len(truth)} poses: none can be scored after the first.")
    folder = data / "Rename_Images" / name
    if not folder.is_dir():
        raise InputError(f"{folder} is missing.")
    # The archives were packed on a Mac and hold hidden files beside the frames.
    by_number: dict[int, Path] = {}
    for path in _visible(folder):
        digits = path.name.partition(".")[0]
        if path.suffix != ".png" or not digits.isdecimal() or not path.is_file():
            continue
        if (twin := by_number.setdefault(int(digits), path)) != path:
            raise InputError(f"{folder} has frame {int(digits)} twice: {twin.name} and {path.name}.")
    first = 0 if 0 in by_number else 1
    numbers = range(first, first + len(truth))
    missing = [f"{number:05d}.png" for number in numbers if number not in by_number]
    if missing:
        raise InputError(f"{folder} lacks {listed(missing)}.")
    pictures = tuple(by_number[number] for number in numbers)
    (width, height), _ = read_header(pictures[0])
    if np.abs(truth).max() > _FARTHEST * max(width, height):
        raise InputError(f"pos_img of {name} has positions far outside of its {width}x{height} pictures.")
    return JhmdbSequence(Clip(name, pictures), (height, width), truth)


def _visible(folder: Path) -> list[Path]:
    """Return the sorted content of a folder without hidden files; empty where the folder is missing."""
    return [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")] if folder.is_dir() else []
