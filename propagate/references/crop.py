"""Crops of a reference around its object, at sizes at which the object may appear in the frame.

A crop is centered on the object's box and has the frame's working size. It is scaled, with its shape kept, so that the
box fills a given share of that size. It stays inside the picture; beyond a small picture its border is repeated, void.
The object's size in the frame is unknown: each reference is used at all of `SHARES`, and the matches decide. With
`compact` a single share gave a mean J of 0.38, 0.48, 0.52 and 0.45 (0.35, 0.5, 0.7, 1), all together 0.53.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

from propagate.errors import InputError
from propagate.geometry import resize_frame
from propagate.types import BACKGROUND, VOID, Label, Mask

SHARES = (0.35, 0.5, 0.7, 1.0)  # size of the object's box in the crops, as a share of the working size
_MARGIN = 0.25  # added to the box around keypoints on each side, as a share: joints lie inside the body
_MIN_BOX = 1 / 8  # smallest box around keypoints, as a share of the picture's short side


@dataclass(frozen=True)
class Piece:
    """A rectangle of a picture, and its size on a canvas whose top left it fills."""

    left: int  # of the rectangle, in pixels of the picture
    top: int
    width: int
    height: int
    size: tuple[int, int]  # (height, width) of the rectangle on the canvas
    canvas: tuple[int, int]  # (height, width)

    def pixels(self, picture: UInt8[ndarray, "h w 3"]) -> UInt8[ndarray, "y x 3"]:
        """Return the canvas, with the border's pixels repeated beyond the picture."""
        return padded(resize_frame(np.ascontiguousarray(self._cut(picture)), self.size), self.canvas)

    def mask(self, mask: Mask) -> Mask:
        """Return the mask of the canvas, void beyond the picture."""
        height, width = self.size
        ids = np.full(self.canvas, VOID, np.uint8)
        ids[:height, :width] = cv2.resize(self._cut(mask.ids), (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
        return Mask(ids)

    def points(self, points: Float[ndarray, "n 2"]) -> Float[ndarray, "n 2"]:
        """Move points (x, y) from pixels of the picture to pixels of the canvas."""
        height, width = self.size
        scale = np.array([width / self.width, height / self.height])
        return np.asarray((points + 0.5 - np.array([self.left, self.top])) * scale - 0.5)

    def shows(self, grid: tuple[int, int]) -> Bool[ndarray, "h w"]:
        """Return which cells of a grid over the canvas have their center in the picture."""
        rows, columns = (
            (np.arange(cells) + 0.5) * pixels / cells <= shown
            for cells, pixels, shown in zip(grid, self.canvas, self.size, strict=True)
        )
        return np.asarray(rows[:, None] & columns)

    def _cut(self, picture: ndarray) -> ndarray:
        return picture[self.top : self.top + self.height, self.left : self.left + self.width]


def pieces(label: Label, picture_size: tuple[int, int], canvas: tuple[int, int]) -> list[Piece]:
    """Return the crops of a reference, one per share of `SHARES`. Raises InputError if the label is empty."""
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
    """Pad a picture on the right and below to (height, width), its border repeated."""
    height, width, _ = pixels.shape
    return np.asarray(cv2.copyMakeBorder(pixels, 0, canvas[0] - height, 0, canvas[1] - width, cv2.BORDER_REPLICATE))


def _box(label: Label, picture_size: tuple[int, int]) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) of the labelled object, in pixel edges."""
    if isinstance(label, Mask):
        rows, columns = np.nonzero((label.ids != BACKGROUND) & (label.ids != VOID))
        if len(rows) == 0:
            raise InputError("The mask of the reference has no object.", "Paint the object into the mask.")
        return float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1)
    present = label.positions[label.present].astype(np.float64)
    if len(present) == 0:
        raise InputError("The reference has no joint that is present.", "Place at least one joint in it.")
    low, high = present.min(0) + 0.5, present.max(0) + 0.5
    half = np.maximum((high - low) * (0.5 + _MARGIN), min(picture_size) * _MIN_BOX / 2)
    middle = (low + high) / 2
    left, top = (middle - half).tolist()
    right, bottom = (middle + half).tolist()
    return left, top, right, bottom
