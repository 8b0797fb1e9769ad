"""The piece of a reference that is looked at: its object, at a size at which it may appear in the frame.

**The rule.** The piece is centered on the box around the labelled object and has the frame's working size. It is
scaled, with its shape kept, so that the box is as large as fits into a given share of that size; the piece stays inside
the picture where that is larger, and where it is smaller what is missing is filled with its border and is void.
How large the object is in the frame nobody knows beforehand, and features know sizes: each reference is looked at with
all of `SHARES`, and the matches decide. With `compact` a single share gave a mean J of 0.38, 0.48, 0.52 and 0.45
(0.35, 0.5, 0.7, 1), all together 0.53 (the pairs of `propagate.references.search`).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

from propagate.errors import InputError
from propagate.geometry import resize_frame
from propagate.types import BACKGROUND, VOID, Keypoints, Label, Mask

SHARES = (0.35, 0.5, 0.7, 1.0)
"""Of the working size: the box around the object in the pieces."""

_MARGIN = 0.25  # of the box around keypoints, on each side: joints lie inside the body
_LEAST = 1 / 8  # of the picture's short side: the box around few joints


@dataclass(frozen=True)
class Piece:
    """A rectangle of a picture and where it goes; the top left of both is (0, 0).

    Attributes:
        left, top, width, height: of the rectangle, in pixels of the picture.
        size: (height, width) of the rectangle on the canvas, whose top left it fills.
        canvas: (height, width).
    """

    left: int
    top: int
    width: int
    height: int
    size: tuple[int, int]
    canvas: tuple[int, int]

    def pixels(self, picture: UInt8[ndarray, "h w 3"]) -> UInt8[ndarray, "y x 3"]:
        """The canvas, the border's pixels repeated where there is no picture."""
        return padded(resize_frame(np.ascontiguousarray(self._cut(picture)), self.size), self.canvas)

    def mask(self, mask: Mask) -> Mask:
        """The mask of the canvas; void where there is no picture."""
        height, width = self.size
        ids = np.full(self.canvas, VOID, np.uint8)
        ids[:height, :width] = cv2.resize(self._cut(mask.ids), (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
        return Mask(ids)

    def points(self, points: Float[ndarray, "n 2"]) -> Float[ndarray, "n 2"]:
        """Points (x, y), from pixels of the picture to pixels of the canvas."""
        moved: ndarray = (points + 0.5 - np.array([self.left, self.top])) * self._scale() - 0.5
        return moved

    def shows(self, grid: tuple[int, int]) -> Bool[ndarray, "h w"]:
        """Which cells of a grid over the canvas have their middle in the picture."""
        rows, columns = (
            (np.arange(cells) + 0.5) * pixels / cells <= shown
            for cells, pixels, shown in zip(grid, self.canvas, self.size, strict=True)
        )
        return np.asarray(rows[:, None] & columns)

    def _scale(self) -> Float[ndarray, "2"]:
        height, width = self.size
        return np.array([width / self.width, height / self.height])

    def _cut(self, picture: ndarray) -> ndarray:
        return picture[self.top : self.top + self.height, self.left : self.left + self.width]


def pieces(label: Label, picture_size: tuple[int, int], canvas: tuple[int, int]) -> list[Piece]:
    """The pieces of a reference, one per share of `SHARES`.

    Args:
        label: of the reference; a mask has its size.
        picture_size: (height, width) of the reference.
        canvas: (height, width), the frame's working size.

    Raises:
        InputError: the label has no object or joint.
    """
    left, top, right, bottom = _box(label, picture_size)
    height, width = picture_size
    found = []
    for share in SHARES:
        scale = share * min(canvas[0] / (bottom - top), canvas[1] / (right - left))
        across, down = (
            max(1, min(length, round(side / scale))) for length, side in ((width, canvas[1]), (height, canvas[0]))
        )
        x = round(min(max((left + right - across) / 2, 0), width - across))
        y = round(min(max((top + bottom - down) / 2, 0), height - down))
        size = (max(1, min(canvas[0], round(down * scale))), max(1, min(canvas[1], round(across * scale))))
        found.append(Piece(x, y, across, down, size, canvas))
    return found


def padded(pixels: UInt8[ndarray, "h w 3"], canvas: tuple[int, int]) -> UInt8[ndarray, "y x 3"]:
    """A picture at the top left of a canvas of (height, width) at least its size, its border repeated."""
    height, width, _ = pixels.shape
    filled: ndarray = cv2.copyMakeBorder(
        pixels, 0, canvas[0] - height, 0, canvas[1] - width, borderType=cv2.BORDER_REPLICATE
    )
    return filled


def _box(label: Label, picture_size: tuple[int, int]) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) of what is labelled, in pixel edges."""
    if isinstance(label, Mask):
        rows, columns = np.nonzero((label.ids != BACKGROUND) & (label.ids != VOID))
        if len(rows) == 0:
            raise InputError("The mask of the reference has no object.", "Paint the object into the mask.")
        return float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1)
    return _box_of_joints(label, picture_size)


def _box_of_joints(keypoints: Keypoints, picture_size: tuple[int, int]) -> tuple[float, float, float, float]:
    present = keypoints.positions[keypoints.present].astype(np.float64)
    if len(present) == 0:
        raise InputError("The reference has no joint that is present.", "Place at least one joint in it.")
    low, high = present.min(0) + 0.5, present.max(0) + 0.5
    half = np.maximum((high - low) * (0.5 + _MARGIN), min(picture_size) * _LEAST / 2)
    middle = (low + high) / 2
    left, top = (middle - half).tolist()
    right, bottom = (middle + half).tolist()
    return left, top, right, bottom
