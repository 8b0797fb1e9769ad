"""Colors of 16 bits per channel, of which Pillow keeps the upper 8."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt16
from numpy import ndarray
from PIL import Image

from propagate.errors import InputError
from propagate.files.pictures import convert_picture

_ROWS = 128  # compared at a time


def load_sixteen_bit(
    path: Path, image: Image.Image, what: str = "picture"
) -> Callable[[slice], UInt16[ndarray, "n w 4"]]:
    """Return a function that reads all 16 bits of some rows of a color picture as RGBA.

    Args:
        path: the file.
        image: the picture from `load_picture`, which must have the same upper 8 bits.
        what: see `inspect_picture`.

    Raises:
        InputError: the 16 bits cannot be read exactly.
    """
    decoded = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    stored = np.zeros((0, 0), np.uint16) if decoded is None else decoded
    key = image.info.get("transparency")

    def rows(band: slice) -> UInt16[ndarray, "n w 4"]:
        channels = stored[band].reshape(*stored[band].shape[:2], -1)
        deep = np.full((*channels.shape[:2], 4), 65535, np.uint16)
        count = channels.shape[2]
        deep[..., :3] = channels[..., 2::-1] if count >= 3 else channels[..., :1]
        if count in (2, 4):
            deep[..., 3] = channels[..., -1]
        elif isinstance(key, tuple):
            deep[(deep[..., :3] == key).all(-1), 3] = 0
        return deep

    def is_same(top: int) -> bool:
        part = image.crop((0, top, image.width, min(top + _ROWS, image.height)))
        upper = np.asarray(convert_picture(part, "RGBA", path, what))[..., :3]
        return bool((rows(slice(top, top + _ROWS))[..., :3] >> 8 == upper).all())

    fits = stored.dtype == np.uint16 and stored.shape[:2] == image.size[::-1]
    if fits and all(is_same(top) for top in range(0, image.height, _ROWS)):
        return rows
    raise InputError(
        f"The {what} {path} has 16 bits per channel, which cannot be read exactly.", "Save it with 8 bits per channel."
    )
