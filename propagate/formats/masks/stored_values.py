"""Numbers and opacities as the file stores them, where Pillow scales or separates them."""

from __future__ import annotations

import numpy as np
from jaxtyping import Shaped, UInt8
from numpy import ndarray
from PIL import Image

from propagate.files.pictures import PictureHeader


def stored_numbers(image: Image.Image, header: PictureHeader) -> Shaped[ndarray, "h w"]:
    """Return the stored numbers of a grayscale picture; Pillow scales those of few bits and of a PGM."""
    if image.mode == "1":
        return np.array(image, dtype=np.uint8)
    values, full, white = np.array(image), _full(image), _white(image, header)
    if white == full:
        return values
    stored: ndarray = np.rint(np.arange(full + 1) * (white / full)).astype(values.dtype)[values]
    return stored


def transparent_number(image: Image.Image) -> int | None:
    """Return the transparent number of a grayscale picture, if any."""
    key = image.info.get("transparency")
    if not isinstance(key, int):
        return None
    return key // 255 if image.mode == "1" else key


def spread_black_and_white(
    values: Shaped[ndarray, "h w"], image: Image.Image, header: PictureHeader
) -> Shaped[ndarray, "h w"]:
    """Return stored numbers, with 255 for white if they are black and white in fewer than 8 bits or from a PGM."""
    white = _white(image, header)
    if white == _full(image) or not np.isin(values, (0, white)).all():
        return values
    return (values > 0).astype(np.uint8) * np.uint8(255)


def _full(image: Image.Image) -> int:
    return 65535 if image.mode.startswith("I") else 255


def _white(image: Image.Image, header: PictureHeader) -> int:
    if image.mode == "1":
        return 1
    few = {"L;4": 15, "L;2": 3}.get(header.raw_mode[:3], 0) if header.mode == "L" else 0
    return header.highest or few or _full(image)


def palette_opacity(image: Image.Image) -> UInt8[ndarray, " 256"]:
    """Return the opacity of each entry of a palette, from 0 to 255."""
    opacity = np.full(256, 255, np.uint8)
    key = image.info.get("transparency")
    if isinstance(key, bytes):
        listed = np.frombuffer(key, np.uint8)[:256]
        opacity[: len(listed)] = listed
    elif isinstance(key, int) and 0 <= key < 256:
        opacity[key] = 0
    return opacity
