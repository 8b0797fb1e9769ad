"""What crosses the borders between modules.

Coordinates, once and for all: x runs to the right, y down, and a pixel's center has integer coordinates, so the
top-left pixel is (0, 0) and the picture spans from -0.5 to width - 0.5. Sizes are (height, width).
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
    """One picture of a video, the right way up.

    Attributes:
        pixels: (H, W, 3) uint8, RGB.
        index: position in the source, from 0.
        time_s: presentation time in seconds.
        name: of the picture's file, without its suffix, as the file system has it (`printable` makes it text for
            people); None in a video.
    """

    pixels: UInt8[ndarray, "h w 3"]
    index: int
    time_s: float
    name: str | None = None

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
    """What is known of a video before its frames are read.

    Attributes:
        width, height: in pixels, after rotation.
        count: number of frames, None where only reading to the end tells.
        rate: average frames per second, None where the source has none (a folder of pictures).
        source: the path, as the user gave it.
        reader: name of the reader that was chosen: "decord", "pyav", "folder" or "arrays".
        notes: things worth telling the user once, each a sentence (what was converted, what is damaged).
        names: of the chosen pictures of a folder, `Frame.name` in order; None for a video.
        indices: indices of the frames that will be read, None where they are not known before.
    """

    width: int
    height: int
    count: int | None
    rate: float | None
    source: str
    reader: str
    notes: tuple[str, ...] = ()
    names: tuple[str, ...] | None = None
    indices: range | None = None


@dataclass(frozen=True, eq=False, init=False)
class Mask:
    """Object ids per pixel.

    Booleans (True is object 1) and other integers are converted. The array is copied: later changes to it do not
    matter.

    Attributes:
        ids: (H, W) uint8; 0 background, 1 to 254 objects (kept as they are, never renumbered), 255 void.
        absent: objects that are said not to be in this frame. An object that is neither in `ids` nor here is untouched:
            where the mask annotates a later frame, it keeps its prediction there.

    Raises:
        InputError: another shape, numbers beyond 0 to 255, floats; an object in `absent` is no object's id, or is in
            the mask.
    """

    ids: UInt8[ndarray, "h w"]
    absent: Set[int]

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
        """The ids that occur, ascending, without background and void."""
        height, width = self.size
        rows = max(1, (1 << 20) // max(width, 1))  # at a time: counting takes 8 bytes for each pixel
        found = np.zeros(VOID + 1, bool)
        for top in range(0, height, rows):
            found |= np.bincount(self.ids[top : top + rows].ravel(), minlength=VOID + 1) > 0
        return tuple(int(i) for i in np.flatnonzero(found) if i not in (BACKGROUND, VOID))

    def __repr__(self) -> str:
        height, width = self.size
        return f"Mask({width}x{height}, objects={self.objects})"


@dataclass(frozen=True, eq=False, init=False)
class Keypoints:
    """Named points of one frame.

    Other numbers than float32 are converted. The arrays are copied: later changes to them do not matter.

    Attributes:
        positions: (J, 2) float32, (x, y) in pixels; both NaN where the joint is absent.
        names: J names, each text that occurs once; J is at least 1.
        skeleton: pairs of joint numbers, from 0, that are drawn as a bone.
        confidence: (J,) float32 in [0, 1]; where not given, 1 for a joint with a position, 0 for an absent one.

    Raises:
        InputError: another shape or length, an infinite position, one of x and y without the other, a confidence
            outside [0, 1], a name twice or without a letter, or a bone between joints that are not there.
    """

    positions: Float32[ndarray, "j 2"]
    names: tuple[str, ...]
    skeleton: tuple[tuple[int, int], ...]
    confidence: Float32[ndarray, " j"]

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
        """(J,) bool: which joints have a position outside of a frame of (height, width) pixels."""
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
    """Return what is given as a label: a mask or keypoints as they are, an array as the mask of its ids.

    Args:
        value: a label, or what `Mask` accepts; it must hold an object.

    Raises:
        InputError: a path, positions without names, an array without an object, or what `Mask` refuses.
    """
    if isinstance(value, Mask | Keypoints):
        return value
    shape = tuple(getattr(value, "shape", ()))
    if shape[1:] == (2,):
        raise InputError(
            f"An array of shape {shape} was given as a label: positions without names?",
            "Give Keypoints(array, names) for joints, Mask(array) for a mask two pixels wide.",
        )
    mask = Mask(value)
    if not mask.objects:
        void = bool((mask.ids == VOID).any())
        raise InputError(
            "A mask without an object was given: "
            + (f"its values are {VOID}, which is void, and 0." if void else "every pixel is background."),
            "Where white is the object, give mask > 0." if void else "Set the object's pixels to 1.",
        )
    return mask


def as_anchors(values: LabelLike | Mapping[int, LabelLike]) -> Label | dict[int, Label]:
    """Return what is given as the labels of frames: `as_label` of it, or of each value of a mapping.

    Raises:
        InputError: see `as_label`; the message says of which frame.
    """
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
    """What was found in one frame, at the frame's own size. Exactly one of `mask` and `keypoints` is set.

    Attributes:
        index, time_s, name: of the frame.
        mask: the objects.
        keypoints: the joints, with their confidence.
        confidence: in [0, 1], per object id (masks) or joint name (keypoints); defined by the codec.
        soft: (L, h, w) the soft labels on the grid, where asked for.
    """

    index: int
    time_s: float
    mask: Mask | None = None
    keypoints: Keypoints | None = None
    confidence: Mapping[int, float] | Mapping[str, float] = field(default_factory=dict)
    soft: Float[Tensor, "l h w"] | None = None
    name: str | None = None

    @property
    def label(self) -> Label:
        """The mask or the keypoints."""
        label = self.mask if self.mask is not None else self.keypoints
        assert label is not None
        return label
