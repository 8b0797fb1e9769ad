"""Parts that the pose data sets share: sequences, predicted keypoints and pictures of both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, Generic, TypeVar

import cv2
import numpy as np
from jaxtyping import Bool, UInt8
from numpy import ndarray

from propagate.benchmarks.benchmark import Clip
from propagate.errors import InputError
from propagate.files.documents import read_json
from propagate.formats import draw_keypoints
from propagate.formats.keypoints.json import poses_of_json
from propagate.geometry import pixels_to_grid, resize_frame
from propagate.types import Frame, Keypoints
from propagate.video import frames_from_arrays
from propagate.video.folder import read_picture

KEYPOINTS_FILE = "keypoints.json"
# Meaning -> RGB, in the third of `pose_pictures`: sky blue and vermilion, which all kinds of color vision tell apart
# (Okabe and Ito).
POSE_COLORS: Mapping[str, tuple[int, int, int]] = MappingProxyType(
    {
        "right": (86, 180, 233),
        "wrong (a cross: lost)": (213, 94, 0),
        "truth": (255, 255, 255),
        "tolerance": (170, 170, 170),
    }
)
_RIGHT, _WRONG, _TRUE, _TOLERANCE = POSE_COLORS.values()
_SHORT_SIDE = 480  # of compared pictures: the dots of a pose do not fit into a smaller one
_FAR = 1e6  # pixels: outside of all pictures, within float32
_SHIFT = 4  # OpenCV draws at a sixteenth of a pixel


@dataclass(frozen=True, eq=False)
class PoseSequence:
    """A clip, and the (height, width) of its pictures."""

    clip: Clip
    size: tuple[int, int]


SequenceT = TypeVar("SequenceT", bound=PoseSequence)


@dataclass(frozen=True, eq=False)
class PoseBenchmark(Generic[SequenceT]):
    """The members of `Benchmark` that are the same for all pose data sets."""

    difference_colors: ClassVar[Mapping[str, tuple[int, int, int]]] = POSE_COLORS
    sequences: tuple[SequenceT, ...]

    @property
    def clips(self) -> tuple[Clip, ...]:
        """Clips of all sequences."""
        return tuple(sequence.clip for sequence in self.sequences)

    def sequence(self, name: str) -> SequenceT:
        """Return the sequence of a clip."""
        return next(sequence for sequence in self.sequences if sequence.clip.name == name)

    def frames(self, clip: Clip) -> Iterable[Frame]:
        """Yield the clip's frames at their own size; see `read_frames`."""
        return read_frames(clip.pictures, self.sequence(clip.name).size)


def read_frames(pictures: Iterable[Path], size: tuple[int, int]) -> Iterable[Frame]:
    """Yield pictures as frames, numbered from 0. Each must have this (height, width)."""
    return frames_from_arrays(_read_pixels(pictures, size))


def _read_pixels(pictures: Iterable[Path], size: tuple[int, int]) -> Iterator[UInt8[ndarray, "h w 3"]]:
    for path in pictures:
        pixels = read_picture(path)
        height, width, _ = pixels.shape
        if (height, width) != size:
            raise InputError(
                f"{path} is {width}x{height}, the first frame of its clip is {size[1]}x{size[0]}.",
                "Download the frames of the data set again.",
            )
        yield pixels


def read_poses(path: Path, names: tuple[str, ...], size: tuple[int, int]) -> dict[int, Keypoints]:
    """Read the predictions of a clip, by position in the clip, from a file of `propagate.formats.KeypointsWriter`.

    The joints `names` may be in another order in the file; `size` is the (height, width) of the clip's frames.
    """
    poses: dict[int, Keypoints] = {}
    for pose in poses_of_json(read_json(path, "keypoints file"), path):
        number, found = pose.frame, pose.keypoints
        assert number is not None  # each entry of the format has a number
        if sorted(found.names) != sorted(names):
            raise InputError(f"{path} has the joints {', '.join(found.names)}.", f"Expected: {', '.join(names)}.")
        if pose.size not in (None, size):
            raise InputError(
                f"{path} was made for {pose.size[1]}x{pose.size[0]} pixels, the frames are {size[1]}x{size[0]}.",
                "Give positions in pixels of the data set's own pictures.",
            )
        if number in poses:
            raise InputError(f"{path} has frame {number} twice.", "Keep one.")
        order = [found.names.index(name) for name in names]
        poses[number] = Keypoints(found.positions[order], names, confidence=found.confidence[order])
    return poses


def pose_pictures(
    pixels: UInt8[ndarray, "h w 3"],
    prediction: Keypoints,
    truth: Keypoints,
    *,
    counted: Bool[ndarray, " j"],
    right: Bool[ndarray, " j"],
    tolerance: float,
) -> tuple[UInt8[ndarray, "y x 3"], ...]:
    """Draw three pictures of one frame: the predicted pose, the true one and their difference.

    The difference shows each counted joint: a gray circle of the tolerance around the true position, and a line from
    there to the predicted position, blue where it is right and orange where it is wrong. An orange cross is a lost
    joint. Names of joints are left out: at the size of a report they are illegible and hide the pose. Pictures are
    enlarged where the short side is below 480.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        prediction, truth: the same joints, in pixels of the frame.
        counted, right: joints that count in this frame, and those that are right.
        tolerance: in pixels; 0 draws no circle.
    """
    height, width, _ = pixels.shape
    zoom = max(1.0, _SHORT_SIDE / min(height, width))
    size = round(height * zoom), round(width * zoom)
    large = resize_frame(pixels, size)
    predicted, true = (_resized_pose(pose, (height, width), size) for pose in (prediction, truth))
    dimmed: UInt8[ndarray, "y x 3"] = cv2.cvtColor(cv2.cvtColor(large, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB) // 2
    for joint in np.flatnonzero(counted & true.present):
        end = predicted.positions[joint] if predicted.present[joint] else None
        _draw_joint(dimmed, true.positions[joint], end, _RIGHT if right[joint] else _WRONG, tolerance * zoom)
    return draw_keypoints(large, predicted, names=False), draw_keypoints(large, true, names=False), dimmed


def _resized_pose(pose: Keypoints, size: tuple[int, int], new_size: tuple[int, int]) -> Keypoints:
    near = np.clip(pose.positions.astype(np.float64), -_FAR, _FAR)
    positions = pixels_to_grid(near, size, new_size).astype(np.float32)
    return Keypoints(positions, pose.names, pose.skeleton, pose.confidence)


def _draw_joint(
    picture: UInt8[ndarray, "h w 3"],
    true: ndarray,
    predicted: ndarray | None,
    color: tuple[int, int, int],
    tolerance: float,
) -> None:
    line = max(1, round(min(picture.shape[:2]) / 280))
    center = _fixed_point(true, picture)
    if 0 < tolerance < 3 * max(picture.shape[:2]):  # a larger circle lies outside of the picture
        cv2.circle(picture, center, round(tolerance * (1 << _SHIFT)), _TOLERANCE, 1, cv2.LINE_AA, _SHIFT)
    if predicted is None:
        arm = 4 * line << _SHIFT
        for slope in (-1, 1):
            start, end = (center[0] - arm, center[1] - slope * arm), (center[0] + arm, center[1] + slope * arm)
            cv2.line(picture, start, end, color, 2 * line, cv2.LINE_AA, _SHIFT)
        return
    end = _fixed_point(predicted, picture)
    cv2.line(picture, center, end, color, line, cv2.LINE_AA, _SHIFT)
    cv2.circle(picture, end, 2 * line << _SHIFT, color, cv2.FILLED, cv2.LINE_AA, _SHIFT)
    cv2.circle(picture, center, line << _SHIFT, _TRUE, cv2.FILLED, cv2.LINE_AA, _SHIFT)


def _fixed_point(position: ndarray, picture: UInt8[ndarray, "h w 3"]) -> tuple[int, int]:
    """Return OpenCV's fixed-point coordinates, clipped because they would overflow far outside of the picture."""
    reach = np.array(picture.shape[1::-1])
    x, y = np.clip(position, -reach, 2 * reach)
    return round(float(x) * (1 << _SHIFT)), round(float(y) * (1 << _SHIFT))
