"""Detect soft edges in mask pictures: each shade between an object and its background would become an object.

A shade lies between two other colors, in color and in place, and never fills an area.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt16
from numpy import ndarray

from propagate.errors import InputError
from propagate.formats.masks.colors import count_numbers

MAX_OBJECTS = 254
_MANY = 32  # more colors than in a hand-drawn mask, fewer than in a photograph
_ROUNDING = 6.0  # maximum distance, in 8-bit levels, of a mixture from the line between its two colors
_NOISE = 24  # maximum error, in 8-bit levels, of lossy compression


def soft_edges(
    compact: UInt16[ndarray, "h w"], table: Float[ndarray, "n 3"], path: Path, source: str
) -> InputError | None:
    """Return the error for a picture with soft edges, a JPEG or a photograph; None for others.

    Args:
        compact: index of each pixel's color.
        table: the colors, RGB in 8-bit levels.
        path: the file, for the message.
        source: name of its lossy compression, empty for exact ones.
    """
    count = len(table)
    if count > 2 and source and (source != "AVIF" or _some_are_close(table)):
        return InputError(
            f"The compression of {path} ({source}) has turned flat colors into {count} shades.", _hard_edges()
        )
    square = np.ones((3, 3), np.uint8)
    inside = count_numbers(compact, count, cv2.erode(compact, square) == cv2.dilate(compact, square))
    # In a square of 3, one pixel in nine has neighbors of its color only; in a blurred edge, hardly any.
    areas = np.flatnonzero(10 * inside >= count_numbers(compact, count))
    shades = _count_shades(compact, table, areas)
    two_tone = len(areas) == 2 and np.abs(table[areas[0]] - table[areas[1]]).max() >= 128
    if shades >= 3 or (two_tone and 0 < shades == count - 2):
        return InputError(
            f"{path} has soft (anti-aliased) edges: {shades} of its {count} colors lie only between two others, and "
            "would become objects of their own.",
            _hard_edges(),
        )
    if count > _MANY and 2 * len(areas) < count:
        return too_many(path, count, "it looks like a photograph or has soft edges")
    return None


def too_many(path: Path, count: int, cause: str) -> InputError:
    """Return the error for a picture with too many colors for a mask."""
    return InputError(
        f"{path} has {count} colors: {cause}; a mask has at most {MAX_OBJECTS} objects.",
        "Give --harden (harden=True) to cut soft edges; or a mask with one flat color for each object, saved as PNG "
        "without anti-aliasing (never as JPEG); of a cut-out picture, save the alpha channel as a mask.",
    )


def _hard_edges() -> str:
    return (
        "Give --harden (harden=True) to take each shade for the nearest flat color; or draw it without anti-aliasing "
        "(pencil instead of brush) and save it as PNG."
    )


def _some_are_close(table: Float[ndarray, "n 3"]) -> bool:
    """Return whether two colors are so close that compression may have made them from one."""
    ordered = table[np.lexsort(table.T)]
    return bool((np.abs(np.diff(ordered, axis=0)).max(1) <= _NOISE).any())


def _count_shades(compact: UInt16[ndarray, "h w"], table: Float[ndarray, "n 3"], areas: Int[ndarray, " a"]) -> int:
    """Count the colors that fill no area, lie at the border of two areas and are a mixture of two areas' colors."""
    if not 2 <= len(areas) <= _MANY:
        return 0
    is_area = np.zeros(len(table), bool)
    is_area[areas] = True
    unknown = ~is_area[compact]
    around = np.ones((7, 7), np.uint8)
    numbers = compact + np.uint16(1)  # at most `MOST_COLORS`: 0 and 65535 are free
    numbers[unknown] = 65535
    lowest = cv2.erode(numbers, around)
    numbers[unknown] = 0
    at_border = unknown & (lowest < cv2.dilate(numbers, around))
    total = count_numbers(compact, len(table))
    near = count_numbers(compact, len(table), at_border)
    candidates = np.flatnonzero(~is_area & (2 * near >= total))[:1024]  # enough for a verdict

    one, other = np.triu_indices(len(areas), 1)
    start, step = table[areas[one]], table[areas[other]] - table[areas[one]]
    shades = 0
    for color in table[candidates]:
        share = ((color - start) * step).sum(1) / np.maximum((step * step).sum(1), 1)
        distance = np.linalg.norm(color - start - share[:, None] * step, axis=1)
        shades += bool(((share > 0) & (share < 1) & (distance < _ROUNDING)).any())
    return shades
