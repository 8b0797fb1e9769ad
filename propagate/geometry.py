"""The one resize rule and the one coordinate convention. Sizes are (height, width); points are (x, y).

**Coordinates.** Pixel centers are integers, so a picture of height H and width W covers y from -0.5 to H - 0.5 and x
from -0.5 to W - 0.5. A grid of h x w cells covers the whole picture in the same way. One linear map per axis, also
across a resize, leads from pixels to cells, as in torch with `align_corners=False` and in OpenCV:
g = (p + 0.5) * cells / pixels - 0.5.

**Resizing.** A frame is resized to its working size without cropping or padding: the short side to a given length, the
long side in proportion, both rounded down to a multiple that the feature extractor needs. With 480 and multiples of 32
this is the rule of DIFT's `eval_davis.py`. DINO's script rounds the long side down to multiples of 64 and leaves the
short side alone; DINOv3's notebook rounds up.
"""

from __future__ import annotations

import math
from typing import Literal

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from numpy import ndarray
from torch import Tensor

Rounding = Literal["down", "up"]
_Points = Float[ndarray, "n 2"]


def working_size(
    frame_size: tuple[int, int],
    *,
    short_side: int | None,
    multiple: int,
    long_multiple: int = 1,
    rounding: Rounding = "down",
) -> tuple[int, int]:
    """Return the (height, width) of a frame for feature extraction.

    The long side follows from `short_side` before rounding down: 480x854 becomes 480x832 with multiples of 32, 720x405
    becomes 832x480, a square stays a square (but `long_multiple` shortens its width, as in DINO's script).

    Args:
        short_side: length of the short side; None: the frame's own size.
        multiple: round both sides to multiples of this, at least one multiple.
        long_multiple: round the long side to a multiple of this as well.
        rounding: "down"; or "up", where the long side follows from the rounded short side.
    """
    height, width = frame_size
    short, long = sorted(frame_size)
    target = short if short_side is None else short_side
    long_step = math.lcm(multiple, long_multiple)
    if rounding == "up":
        resized_short = -(-target // multiple) * multiple
        resized_long = -(-resized_short * long // (short * long_step)) * long_step
    else:
        resized_short = max(target // multiple, 1) * multiple
        resized_long = max(target * long // short // long_step, 1) * long_step
    return (resized_short, resized_long) if height <= width else (resized_long, resized_short)


def resize_frame(pixels: UInt8[ndarray, "h w 3"], size: tuple[int, int]) -> UInt8[ndarray, "y x 3"]:
    """Resize a frame to (height, width); return the same array if it has that size.

    Two-tap bilinear with half-pixel centers, as in DIFT and DINO. If a side shrinks by more than a factor of two, that
    would skip pixels (and flicker from frame to frame), so pixels are averaged by area.
    """
    height, width, _ = pixels.shape
    if (height, width) == size:
        return pixels
    shrinks = height > 2 * size[0] or width > 2 * size[1]
    return np.asarray(cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR))


def to_tensor(pixels: UInt8[ndarray, "h w 3"]) -> Float[Tensor, "3 h w"]:
    """Convert (H, W, 3) uint8 to (3, H, W) float32 in [0, 1], contiguous, as a copy."""
    planes: Float32[ndarray, "3 h w"] = pixels.transpose(2, 0, 1).astype(np.float32, order="C")
    return torch.from_numpy(planes).div_(255)


def grid_size(size: tuple[int, int], stride: int) -> tuple[int, int]:
    """Return (rows, columns) of the feature grid over a picture of (height, width), rounded up."""
    height, width = size
    return -(-height // stride), -(-width // stride)


def pixels_to_grid(points: _Points, frame_size: tuple[int, int], grid: tuple[int, int]) -> _Points:
    """Convert (n, 2) points (x, y) from pixels to grid cells; NaN stays NaN."""
    return np.asarray((points + 0.5) * (np.array(grid[::-1], np.float64) / np.array(frame_size[::-1])) - 0.5)


def grid_to_pixels(points: _Points, frame_size: tuple[int, int], grid: tuple[int, int]) -> _Points:
    """Convert (n, 2) points (x, y) from grid cells to pixels; NaN stays NaN."""
    return pixels_to_grid(points, grid, frame_size)
