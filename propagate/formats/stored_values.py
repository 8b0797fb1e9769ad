"""Numbers and opacities of a picture as its file stores them, where Pillow changes them or holds them apart."""

from __future__ import annotations

import numpy as np
from jaxtyping import Shaped, UInt8
from numpy import ndarray
from PIL import Image

from propagate.pictures import PictureHeader


def stored_numbers(image: Image.Image, header: PictureHeader) -> Shaped[ndarray, "h w"]:
    """The numbers of a grayscale picture as they are stored; Pillow spreads those of 2 and 4 bits and of a PGM."""
    if image.mode == "1":
        return np.array(image, dtype=np.uint8) * np.uint8(255)
    values = np.array(image)
    for mode, step in (("L;4", 17), ("L;2", 85)):
        if header.raw_mode.startswith(mode) and header.mode == "L":
            values = values // np.uint8(step)
            most = 255 // step
            if np.isin(values, (0, most)).all():  # black and white
                values = values // np.uint8(most) * np.uint8(255)
    if header.highest:
        full = 65535 if image.mode == "I" else 255
        if np.isin(values, (0, full)).all():  # black and white
            return (values > 0).astype(np.uint8) * np.uint8(255)
        values = np.rint(values * (header.highest / full)).astype(values.dtype)
    return values


def palette_opacity(image: Image.Image) -> UInt8[ndarray, " 256"]:
    """Opacity of each entry of a palette, from 0 to 255."""
    opacity = np.full(256, 255, np.uint8)
    key = image.info.get("transparency")
    if isinstance(key, bytes):
        listed = np.frombuffer(key, np.uint8)[:256]
        opacity[: len(listed)] = listed
    elif isinstance(key, int) and 0 <= key < 256:
        opacity[key] = 0
    return opacity
