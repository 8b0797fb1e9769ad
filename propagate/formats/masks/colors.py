"""Colors, numbers and opacities of a picture as its file stores them, where Pillow scales or separates them.

Colors are counted in bands of rows, without a second copy of the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, Shaped, UInt8, UInt16
from numpy import ndarray
from PIL import Image

from propagate.files.pictures import PictureHeader

MOST_COLORS = 60_000  # far more than a mask with soft edges has
TRANSPARENT = -1
_BAND_PIXELS = 1 << 20
# RGBA of some rows, uint8 or uint16
Rows = Callable[[slice], Shaped[ndarray, "n w 4"]]


@dataclass(frozen=True, eq=False)
class Colors:
    """The colors of a picture."""

    codes: Int[ndarray, " n"]  # red, green and blue, 16 bits each, as one number, rising; -1 for transparent
    first: Int[ndarray, " n"]  # place of each color's first pixel, row by row
    compact: UInt16[ndarray, "h w"] | None  # index of each pixel's color; None for more than `MOST_COLORS`
    solid: bool  # no pixel is transparent
    soft: bool  # some pixels are neither transparent nor opaque


def bands(height: int, width: int) -> Iterator[slice]:
    """Yield slices of rows that cover a picture of this size, each of about a million pixels."""
    step = max(1, _BAND_PIXELS // max(width, 1))
    return (slice(start, min(start + step, height)) for start in range(0, height, step))


def count_colors(rows: Rows, height: int, width: int) -> Colors:
    """Return the colors of a picture; all pixels below half opacity count as one color."""
    codes, first = np.zeros(0, np.int64), np.zeros(0, np.int64)
    solid, soft = True, False
    for band in bands(height, width):
        part = rows(band)
        clear = _is_clear(part)
        solid = solid and not clear.any()
        soft = soft or bool(((part[..., 3] > 0) & (part[..., 3] < np.iinfo(part.dtype).max)).any())
        if len(codes) <= MOST_COLORS:
            line, starts = _runs(part)
            found, at = np.unique(line[starts], return_index=True)
            places = np.concatenate([first, starts[at] + band.start * width])
            codes, index = np.unique(np.concatenate([codes, found]), return_index=True)
            first = places[index]
    if len(codes) > MOST_COLORS:
        return Colors(codes, first, None, solid, soft)
    compact = np.empty((height, width), np.uint16)
    for band in bands(height, width):
        line, starts = _runs(rows(band))
        numbers = np.searchsorted(codes, line[starts]).astype(np.uint16)
        compact[band] = np.repeat(numbers, np.diff(starts, append=len(line))).reshape(-1, width)
    return Colors(codes, first, compact, solid, soft)


def count_numbers(
    numbers: Shaped[ndarray, "h w"], length: int, where: Bool[ndarray, "h w"] | None = None
) -> Int[ndarray, " n"]:
    """Return the number of pixels with each value from 0 to below a length, of all pixels or of some."""
    total = np.zeros(length, np.int64)
    for band in bands(*numbers.shape):
        part = numbers[band] if where is None else numbers[band][where[band]]
        total += np.bincount(part.ravel(), minlength=length)
    return total


def solid_rgb(rows: Rows, height: int, width: int) -> tuple[UInt8[ndarray, "h w 3"], Bool[ndarray, "h w"]]:
    """Return the upper 8 bits of a picture's colors, and which of its pixels are not transparent."""
    rgb, solid = np.empty((height, width, 3), np.uint8), np.empty((height, width), bool)
    for band in bands(height, width):
        part = rows(band)
        rgb[band] = part[..., :3] if part.dtype == np.uint8 else part[..., :3] >> 8
        solid[band] = ~_is_clear(part)
    return rgb, solid


def _is_clear(part: Shaped[ndarray, "n w 4"]) -> Bool[ndarray, "n w"]:
    return np.asarray(part[..., 3] <= np.iinfo(part.dtype).max // 2)


def _runs(part: Shaped[ndarray, "n w 4"]) -> tuple[Int[ndarray, " m"], Int[ndarray, " r"]]:
    """Return the code of each pixel, row by row, and the starts of runs of equal codes."""
    line = part[..., 0].astype(np.int64)
    for channel in (1, 2):
        line <<= 16
        line |= part[..., channel]
    line[_is_clear(part)] = TRANSPARENT
    line = line.ravel()
    return line, np.flatnonzero(np.concatenate([[True], line[1:] != line[:-1]]))


def stored_numbers(image: Image.Image, header: PictureHeader) -> Shaped[ndarray, "h w"]:
    """Return the stored numbers of a grayscale picture; Pillow scales those of few bits and of a PGM."""
    if image.mode == "1":
        return np.array(image, dtype=np.uint8)
    values, full, white = np.array(image), _full(image), _white(image, header)
    if white == full:
        return values
    return np.asarray(np.rint(np.arange(full + 1) * (white / full)).astype(values.dtype)[values])


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
