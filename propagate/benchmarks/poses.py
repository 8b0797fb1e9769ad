"""What the pose data sets share: reading frames and predicted keypoints, pictures of both, cells of tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

import cv2
import numpy as np
from jaxtyping import Bool, Float64, UInt8
from numpy import ndarray

from propagate.benchmarks.benchmark import Curve, Table
from propagate.errors import InputError
from propagate.files.documents import read_json
from propagate.files.names import reading
from propagate.formats import draw_keypoints
from propagate.formats.keypoints.json import poses_of_json
from propagate.geometry import pixels_to_grid, resize_frame
from propagate.types import Frame, Keypoints
from propagate.video import frames_from_arrays
from propagate.video.folder import read_picture

KEYPOINTS_FILE = "keypoints.json"
JudgedT = TypeVar("JudgedT")

_LISTED = 10
_SHORT_SIDE = 480  # of compared pictures: the dots of a pose do not fit into a smaller one
_FAR = 1e6  # pixels: no picture reaches so far, and float32 does
_SHIFT = 4  # OpenCV draws at a sixteenth of a pixel
# sky blue and vermilion, which every kind of color vision tells apart (Okabe and Ito)
POSE_COLORS: Mapping[str, tuple[int, int, int]] = MappingProxyType(
    {
        "right": (86, 180, 233),
        "wrong (a cross: lost)": (213, 94, 0),
        "truth": (255, 255, 255),
        "tolerance": (170, 170, 170),
    }
)
"""What a color of the third of `pose_pictures` says -> RGB."""
_RIGHT, _WRONG, _TRUE, _TOLERANCE = POSE_COLORS.values()


def read_frames(pictures: Iterable[Path], size: tuple[int, int]) -> Iterable[Frame]:
    """The pictures as frames numbered from 0.

    Args:
        pictures: in order.
        size: (height, width) that each must have.

    Raises:
        InputError: while iterating, a picture that cannot be read or is of another size.
    """
    return frames_from_arrays(_pixels(pictures, size))


def read_poses(path: Path, names: tuple[str, ...], size: tuple[int, int]) -> dict[int, Keypoints]:
    """The predictions of a clip, by position in the clip, from a file of `propagate.formats.KeypointsWriter`.

    Args:
        path: JSON.
        names: the joints wanted; the file may have them in another order.
        size: (height, width) of the clip's frames in pixels.

    Raises:
        InputError: unreadable, other joints, another size, or a frame that is there twice.
    """
    document = read_json(path, "keypoints file")
    poses: dict[int, Keypoints] = {}
    for pose in poses_of_json(document, path):
        number, found = pose.frame, pose.keypoints
        assert number is not None  # the format has a number in every entry
        if sorted(found.names) != sorted(names):
            raise InputError(f"{path} has the joints {', '.join(found.names)}.", f"Wanted: {', '.join(names)}.")
        if pose.size not in (None, size):
            raise InputError(
                f"{path} was made for {pose.size[1]}x{pose.size[0]} pixels, the frames are {size[1]}x{size[0]}.",
                "Positions are those in the data set's own pictures.",
            )
        if number in poses:
            raise InputError(f"{path} has frame {number} twice.", "Keep one.")
        order = [found.names.index(name) for name in names]
        poses[number] = Keypoints(found.positions[order], names, confidence=found.confidence[order])
    return poses


def judge_clips(
    results: Path, names: Iterable[str], judge: Callable[[str], JudgedT]
) -> tuple[dict[str, JudgedT], dict[str, tuple[str, ...]]]:
    """What became of every clip, and why of the others it cannot be said.

    Args:
        results: for the message.
        names: of the clips.
        judge: reads and judges the results of one; may raise InputError.

    Raises:
        InputError: not one clip could be judged.
    """
    judged, problems = dict[str, JudgedT](), dict[str, tuple[str, ...]]()
    for name in names:
        try:
            with reading(results / name):
                judged[name] = judge(name)
        except InputError as error:
            problems[name] = (str(error),)
    if not judged:
        first = next(iter(problems.values()))[0]
        raise InputError(f"No clip in {results} could be scored. The first one: {first}")
    return judged, problems


def left_out(scored: Sized, problems: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """A remark where clips could not be scored."""
    if not problems:
        return ()
    return (f"Only {len(scored)} of {len(scored) + len(problems)} clips were scored, without {listed([*problems])}.",)


def pose_pictures(
    pixels: UInt8[ndarray, "h w 3"],
    prediction: Keypoints,
    truth: Keypoints,
    *,
    counted: Bool[ndarray, " j"],
    right: Bool[ndarray, " j"],
    tolerance: float,
) -> tuple[UInt8[ndarray, "y x 3"], ...]:
    """Three pictures of one frame: the predicted pose, the true one, and where they differ.

    In the third, every joint that counts has a grey circle of the tolerance around its true position and a line from
    there to the predicted one, blue where that is right and orange where it is wrong. An orange cross: it was lost.
    Joints have no names: in a picture as small as a report shows it they cannot be read, and hide the pose.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        prediction, truth: in pixels of it; of the same joints.
        counted: the joints that count in this frame.
        right: those of them that are right.
        tolerance: in pixels; 0 draws no circle.

    Returns:
        Three times uint8 RGB, of one size: that of `pixels`, enlarged where its short side is below 480.
    """
    height, width, _ = pixels.shape
    zoom = max(1.0, _SHORT_SIDE / min(height, width))
    size = round(height * zoom), round(width * zoom)
    large = resize_frame(pixels, size)
    predicted, true = (_moved(pose, (height, width), size) for pose in (prediction, truth))
    dimmed: UInt8[ndarray, "y x 3"] = cv2.cvtColor(cv2.cvtColor(large, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB) // 2
    for joint in np.flatnonzero(counted & true.present):
        _draw_difference(
            dimmed,
            true.positions[joint],
            predicted.positions[joint] if predicted.present[joint] else None,
            _RIGHT if right[joint] else _WRONG,
            tolerance * zoom,
        )
    return draw_keypoints(large, predicted, names=False), draw_keypoints(large, true, names=False), dimmed


def curve_table(curves: Sequence[Curve]) -> Table:
    """`curves.csv`: one row per clip and scored frame, one column per metric, to the last digit.

    Args:
        curves: at least one, all with the same metrics.
    """
    metrics = tuple(curves[0].values)
    rows = []
    for curve in curves:
        columns = (curve.values[metric].tolist() for metric in metrics)
        for frame, *values in zip(curve.frames, *columns, strict=True):
            rows.append((curve.clip, str(frame), *("" if math.isnan(value) else repr(value) for value in values)))
    return Table("curves.csv", ("sequence", "frame", *metrics), tuple(rows))


def mean(values: Float64[ndarray, " n"]) -> float:
    """Mean of what is not NaN; NaN where nothing is left."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


def cell(value: float) -> str:
    """A share with four decimals; empty for NaN, where nothing was counted."""
    return "" if math.isnan(value) else f"{value:.4f}"


def listed(items: Sequence[object], separator: str = ", ") -> str:
    """The first items of a list that may be long, and how many more there are."""
    more = f"{separator}and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
    return separator.join(map(str, items[:_LISTED])) + more


def _pixels(pictures: Iterable[Path], size: tuple[int, int]) -> Iterator[UInt8[ndarray, "h w 3"]]:
    for path in pictures:
        pixels = read_picture(path)
        height, width, _ = pixels.shape
        if (height, width) != size:
            raise InputError(
                f"{path} is {width}x{height}, the first frame of its clip is {size[1]}x{size[0]}.",
                "Take the frames from the data set again.",
            )
        yield pixels


def _moved(pose: Keypoints, size: tuple[int, int], new_size: tuple[int, int]) -> Keypoints:
    """A pose in a picture that was resized."""
    near = np.clip(pose.positions.astype(np.float64), -_FAR, _FAR)
    positions = pixels_to_grid(near, size, new_size).astype(np.float32)
    return Keypoints(positions, pose.names, pose.skeleton, pose.confidence)


def _draw_difference(
    picture: UInt8[ndarray, "h w 3"],
    true: ndarray,
    predicted: ndarray | None,
    color: tuple[int, int, int],
    tolerance: float,
) -> None:
    line = max(1, round(min(picture.shape[:2]) / 280))
    center = _fixed(true, picture)
    if 0 < tolerance < 3 * max(picture.shape[:2]):  # no part of a larger circle, nor of none, is in the picture
        cv2.circle(picture, center, round(tolerance * (1 << _SHIFT)), _TOLERANCE, 1, cv2.LINE_AA, _SHIFT)
    if predicted is None:
        arm = 4 * line << _SHIFT
        for slope in (-1, 1):
            start, end = (center[0] - arm, center[1] - slope * arm), (center[0] + arm, center[1] + slope * arm)
            cv2.line(picture, start, end, color, 2 * line, cv2.LINE_AA, _SHIFT)
        return
    end = _fixed(predicted, picture)
    cv2.line(picture, center, end, color, line, cv2.LINE_AA, _SHIFT)
    cv2.circle(picture, end, 2 * line << _SHIFT, color, cv2.FILLED, cv2.LINE_AA, _SHIFT)
    cv2.circle(picture, center, line << _SHIFT, _TRUE, cv2.FILLED, cv2.LINE_AA, _SHIFT)


def _fixed(position: ndarray, picture: UInt8[ndarray, "h w 3"]) -> tuple[int, int]:
    """OpenCV's fixed-point coordinates, which would overflow far outside of the picture."""
    reach = np.array(picture.shape[1::-1])
    x, y = np.clip(position, -reach, 2 * reach)
    return round(float(x) * (1 << _SHIFT)), round(float(y) * (1 << _SHIFT))
