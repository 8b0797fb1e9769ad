"""What crosses the borders between modules.

Coordinates, once and for all: x runs to the right, y down, and a pixel's center has integer coordinates, so the
top-left pixel is (0, 0) and the picture spans from -0.5 to width - 0.5. Sizes are (height, width).
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Float32, UInt8
from numpy import ndarray

from propagate.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

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
        notes: things worth telling the user once, each a sentence (why this reader, what was converted).
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


@dataclass(frozen=True, eq=False)
class Mask:
    """Object ids per pixel.

    Attributes:
        ids: (H, W) uint8; 0 background, 1 to 254 objects (kept as they are, never renumbered), 255 void.
        absent: objects that are said not to be in this frame. An object that is neither in `ids` nor here is untouched:
            where the mask annotates a later frame, it keeps its prediction there.

    Raises:
        InputError: an object in `absent` is no object's id, or is in the mask.
    """

    ids: UInt8[ndarray, "h w"]
    absent: Set[int] = frozenset()

    def __post_init__(self) -> None:
        object.__setattr__(self, "absent", frozenset(self.absent))
        if self.absent and (
            wrong := [i for i in sorted(self.absent) if not BACKGROUND < i < VOID or i in self.objects]
        ):
            raise InputError(
                f"Object {wrong[0]} cannot be absent: it is in the mask, or is no object.",
                "Objects have ids from 1 to 254; erase one from the mask, or do not call it absent.",
            )

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        height, width = self.ids.shape
        return height, width

    @property
    def objects(self) -> tuple[int, ...]:
        """The ids that occur, ascending, without background and void."""
        return tuple(int(i) for i in np.unique(self.ids) if i not in (BACKGROUND, VOID))

    def __repr__(self) -> str:
        height, width = self.size
        return f"Mask({width}x{height}, objects={self.objects})"


@dataclass(frozen=True, eq=False)
class Keypoints:
    """Named points of one frame.

    Attributes:
        positions: (J, 2) float32, (x, y) in pixels; NaN where the joint is absent.
        names: J names.
        skeleton: pairs of joint numbers that are drawn as a bone.
        confidence: (J,) float32 in [0, 1]; where not given, 1 for a joint with a position, 0 for an absent one.
    """

    positions: Float32[ndarray, "j 2"]
    names: tuple[str, ...]
    skeleton: tuple[tuple[int, int], ...] = ()
    confidence: Float32[ndarray, " j"] = field(default_factory=lambda: np.empty(0, np.float32))

    def __post_init__(self) -> None:
        if len(self.names) != len(self.positions):
            raise ValueError(f"{len(self.names)} names for {len(self.positions)} positions")
        if len(self.confidence) == 0:
            object.__setattr__(self, "confidence", self.present.astype(np.float32))

    @property
    def present(self) -> np.ndarray:
        """(J,) bool: which joints have a position."""
        return np.asarray(np.isfinite(self.positions).all(1))

    def __repr__(self) -> str:
        return f"Keypoints({int(self.present.sum())} of {len(self.names)} present)"


Label = Mask | Keypoints


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
