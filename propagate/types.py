"""The types that modules exchange: frames, labels, predictions. For coordinates see `propagate.geometry`.

Sizes are (height, width), points (x, y) with integer pixel centers: the top-left pixel is (0, 0).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from jaxtyping import Float, Float32, UInt8
from numpy import ndarray

from propagate.errors import InputError
from propagate.label_arrays import (
    checked_absent,
    checked_confidence,
    checked_ids,
    checked_names,
    checked_positions,
    checked_skeleton,
)

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from torch import Tensor

    Ids: TypeAlias = Iterable[int]
    Names: TypeAlias = Sequence[str]
    Bones: TypeAlias = Iterable[tuple[int, int]]
else:
    ArrayLike = Ids = Names = Bones = Any  # `label_arrays` checks them, with errors of ours

BACKGROUND = 0
VOID = 255


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a video, upright."""

    pixels: UInt8[ndarray, "h w 3"]  # RGB
    index: int  # position in the source, from 0
    time_s: float  # presentation time in seconds
    name: str | None = None  # file name of the picture without suffix, unescaped (see `printable`); None in a video

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        height, width, _ = self.pixels.shape
        return height, width

    def __repr__(self) -> str:
        height, width = self.size
        return f"Frame(index={self.index}, time_s={self.time_s:.3f}, {width}x{height})"


@dataclass(frozen=True)
class FrameInfo:
    """Properties of a video known before its frames are read."""

    width: int  # in pixels, after rotation
    height: int
    count: int | None  # number of frames; None if only reading to the end can tell
    rate: float | None  # average frames per second; None for a folder of pictures
    source: str  # the path, as the user gave it
    reader: str  # "decord", "pyav", "folder" or "arrays"
    notes: tuple[str, ...] = ()  # sentences for the user (what was converted, what is damaged)
    names: tuple[str, ...] | None = None  # `Frame.name` of the chosen pictures of a folder, in order; None for a video
    indices: range | None = None  # indices of the frames to be read; None if unknown


@dataclass(frozen=True, eq=False, init=False)
class Mask:
    """Object ids per pixel, copied; booleans (True is object 1) and other integers are converted.

    Raises:
        InputError: another shape, values outside 0 to 255, floats; `absent` has an invalid id or one in the mask.
    """

    ids: UInt8[ndarray, "h w"]  # 0 background, 1 to 254 objects (never renumbered), 255 void
    absent: Set[int]  # objects declared absent; in a later frame, objects neither here nor in `ids` are predicted

    def __init__(self, ids: ArrayLike, absent: Ids = frozenset()) -> None:
        object.__setattr__(self, "ids", checked_ids(ids))
        object.__setattr__(self, "absent", checked_absent(absent, self.ids))

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        height, width = self.ids.shape
        return height, width

    @property
    def objects(self) -> tuple[int, ...]:
        """The ids in the mask, ascending, without background and void."""
        height, width = self.size
        rows = max(1, (1 << 20) // max(width, 1))  # per step: counting takes 8 bytes per pixel
        found = np.zeros(VOID + 1, bool)
        for top in range(0, height, rows):
            found |= np.bincount(self.ids[top : top + rows].ravel(), minlength=VOID + 1) > 0
        return tuple(int(i) for i in np.flatnonzero(found) if i not in (BACKGROUND, VOID))

    def __repr__(self) -> str:
        height, width = self.size
        return f"Mask({width}x{height}, objects={self.objects})"


@dataclass(frozen=True, eq=False, init=False)
class Keypoints:
    """Named points of one frame. Arrays are copied and converted to float32.

    Raises:
        InputError: another shape or length, an infinite position, only one of x and y, a confidence outside [0, 1], a
            duplicate or empty name, or a bone between joints that do not exist.
    """

    positions: Float32[ndarray, "j 2"]  # (x, y) in pixels; both NaN for an absent joint
    names: tuple[str, ...]  # at least 1, no duplicates
    skeleton: tuple[tuple[int, int], ...]  # pairs of joint numbers, from 0, to draw as bones
    confidence: Float32[ndarray, " j"]  # in [0, 1]; default: 1 for a joint with a position, 0 for an absent one

    def __init__(
        self, positions: ArrayLike, names: Names, skeleton: Bones = (), confidence: ArrayLike | None = None
    ) -> None:
        joints = checked_names(names)
        object.__setattr__(self, "names", joints)
        object.__setattr__(self, "positions", checked_positions(positions, joints))
        object.__setattr__(self, "skeleton", checked_skeleton(skeleton, len(joints)))
        given = self.present.astype(np.float32) if confidence is None else checked_confidence(confidence, joints)
        object.__setattr__(self, "confidence", given)

    @property
    def present(self) -> np.ndarray:
        """(J,) bool: which joints have a position."""
        return np.asarray(np.isfinite(self.positions).all(1))

    def outside(self, size: tuple[int, int]) -> np.ndarray:
        """(J,) bool: which joints have a position outside a frame of (height, width) pixels."""
        far = np.array(size[::-1]) - 0.5
        return np.asarray(((self.positions < -0.5) | (self.positions > far)).any(1))

    def __repr__(self) -> str:
        return f"Keypoints({int(self.present.sum())} of {len(self.names)} present)"


Label = Mask | Keypoints
if TYPE_CHECKING:
    LabelLike: TypeAlias = Label | ndarray
    MaskLike: TypeAlias = Mask | ArrayLike
else:
    LabelLike = MaskLike = Any  # `as_label` and `Mask` check them


def as_label(value: LabelLike) -> Label:
    """Return a label unchanged, or an array of ids as a mask. Raises InputError if it is invalid or has no object."""
    if isinstance(value, Mask | Keypoints):
        return value
    shape = tuple(getattr(value, "shape", ()))
    if shape[1:] == (2,):
        raise InputError(
            f"The label is an array of shape {shape}: positions without names?",
            "Give Keypoints(array, names) for joints, Mask(array) for a mask two pixels wide.",
        )
    mask = Mask(value)
    if not mask.objects:
        void = bool((mask.ids == VOID).any())
        raise InputError(
            "The mask has no object: "
            + (f"its values are {VOID}, which is void, and 0." if void else "every pixel is background."),
            "If white is the object, give mask > 0." if void else "Set the object's pixels to 1.",
        )
    return mask


def as_anchors(values: LabelLike | Mapping[int, LabelLike]) -> Label | dict[int, Label]:
    """Apply `as_label` to a label, or to each value of a mapping from frame index to label; errors name the frame."""
    if not isinstance(values, Mapping):
        return as_label(values)
    anchors = {}
    for index, value in values.items():
        try:
            anchors[index] = as_label(value)
        except InputError as error:
            raise InputError(f"Frame {index}: {error.message}", error.remedy) from error
    return anchors


@dataclass(frozen=True, eq=False)
class Prediction:
    """The result for one frame, at the frame's own size. Exactly one of `mask` and `keypoints` is set."""

    index: int  # like `time_s` and `name` as in `Frame`
    time_s: float
    mask: Mask | None = None
    keypoints: Keypoints | None = None
    # in [0, 1], per object id (masks) or joint name (keypoints); defined by the codec
    confidence: Mapping[int, float] | Mapping[str, float] = field(default_factory=dict)
    soft: Float[Tensor, "l h w"] | None = None  # soft labels on the grid, with `output.soft`
    name: str | None = None

    @property
    def label(self) -> Label:
        """The mask or the keypoints."""
        label = self.mask if self.mask is not None else self.keypoints
        assert label is not None
        return label
