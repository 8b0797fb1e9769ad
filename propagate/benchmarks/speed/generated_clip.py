"""A generated clip for measuring speed: textured shapes that move over a textured background."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, UInt8
from numpy import ndarray

from propagate.errors import UsageError
from propagate.formats import VideoWriter
from propagate.formats.palette import BRIGHT_PALETTE
from propagate.types import Mask

_RATE = 25.0
_PERIOD = 50  # frames of a swing
_RADIUS, _SWING = 0.3, 0.12  # of a shape and its swing, as shares of its cell
_PAN = 64  # pixels by which the background moves to and fro, one per frame
_LEAST_CELL = 8  # pixels; a smaller shape would have no texture


class _Shape:
    """An ellipse that swings in its own cell of the frame, with its texture."""

    def __init__(self, number: int, center: tuple[float, float], cell: tuple[float, float], texture: ndarray) -> None:
        self.number = number
        self._center, self._cell = center, cell
        half = [max(2, int(side * _RADIUS)) for side in cell]
        y, x = np.mgrid[-half[0] : half[0] + 1, -half[1] : half[1] + 1]
        self.inside: Bool[ndarray, "h w"] = (y / half[0]) ** 2 + (x / half[1]) ** 2 <= 1
        height, width = self.inside.shape
        rows = (np.arange(height) + 37 * number) % texture.shape[0]
        columns = (np.arange(width) + 101 * number) % texture.shape[1]
        color = BRIGHT_PALETTE[number].astype(np.float32)
        mixed = 0.5 * texture[rows][:, columns].astype(np.float32) + 0.5 * color
        self.pixels: UInt8[ndarray, "h w 3"] = mixed.astype(np.uint8)

    def place(self, index: int) -> tuple[slice, slice]:
        """Return the rows and columns of the shape in a frame."""
        angle = 2 * math.pi * (index / _PERIOD + self.number / 7)
        height, width = self.inside.shape
        top = round(self._center[0] + _SWING * self._cell[0] * math.cos(angle)) - height // 2
        left = round(self._center[1] + _SWING * self._cell[1] * math.sin(angle)) - width // 2
        return slice(top, top + height), slice(left, left + width)


def generate_clip(path: Path, *, frames: int, size: tuple[int, int], objects: int) -> Mask:
    """Write an mp4 with up to 254 objects that never overlap, and return its first mask, with ids from 1.

    The same arguments give the same frames. A UsageError says that the objects do not fit into the frames.
    """
    shapes, texture = _shapes(size, objects), _texture((size[0], size[1] + _PAN))
    with VideoWriter(path, _RATE) as video:
        for index in range(frames):
            shift = _PAN - abs(index % (2 * _PAN) - _PAN)
            picture = texture[:, shift : shift + size[1]].copy()
            for shape in shapes:
                picture[shape.place(index)][shape.inside] = shape.pixels[shape.inside]
            video.write(picture)
    return shapes_mask(size, objects)


def shapes_mask(size: tuple[int, int], objects: int) -> Mask:
    """Return the mask of a generated clip's first frame."""
    ids = np.zeros(size, np.uint8)
    for shape in _shapes(size, objects):
        ids[shape.place(0)][shape.inside] = shape.number
    return Mask(ids)


def _shapes(size: tuple[int, int], objects: int) -> list[_Shape]:
    height, width = size
    columns = min(objects, math.ceil(math.sqrt(objects * width / height)))
    rows = math.ceil(objects / columns)
    cell = height / rows, width / columns
    if min(cell) < _LEAST_CELL:
        raise UsageError(f"--objects {objects} do not fit into frames of {width}x{height}.", "Give fewer.")
    texture = _texture((256, 256))
    return [
        _Shape(i + 1, ((i // columns + 0.5) * cell[0], (i % columns + 0.5) * cell[1]), cell, texture)
        for i in range(objects)
    ]


def _texture(size: tuple[int, int]) -> UInt8[ndarray, "h w 3"]:
    """Return spots of all colors, a few pixels wide, like the texture of natural pictures."""
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3).astype(np.float32)
    return np.asarray(np.clip(128 + (smooth - 127.5) * 6, 0, 255), np.uint8)
