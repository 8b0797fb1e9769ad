"""Soft edges of mask pictures: detect them, and on request replace their shades by the flat colors beside them.

Each shade between an object and its background would become an object. A shade lies between two other colors, in color
and in place, and never fills an area.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8, UInt16
from numpy import ndarray

from propagate.errors import InputError
from propagate.formats.masks.colors import bands, count_numbers

Rgb = UInt8[ndarray, "h w 3"]
Where = Bool[ndarray, "h w"]
Table = Float[ndarray, "_ 3"]  # colors

MAX_OBJECTS = 254
_HARD_EDGES = (
    "Give --harden (harden=True) to take each shade for the nearest flat color; or draw it without anti-aliasing "
    "(pencil instead of brush) and save it as PNG."
)
_MANY = 32  # more colors than in a hand-drawn mask, fewer than in a photograph
_ROUNDING = 6.0  # maximum distance, in 8-bit levels, of a mixture from the line between its two colors
_NOISE = 24  # maximum error, in 8-bit levels, of lossy compression
_SAME = 40  # maximum noise of a flat color, in 8-bit levels
_APART = 64  # minimum distance of a flat color from the mixtures of others
_MOST_FLAT = 32
_EXACT, _NOISY = 0, 8  # range of a flat color within a square of 3 pixels
_BLACK = 12  # maximum of lossy black


def soft_edges(compact: UInt16[ndarray, "h w"], table: Table, path: Path, source: str) -> InputError | None:
    """Return the error for a picture with soft edges, a JPEG or a photograph; None for others.

    `compact` has the index of each pixel's color in `table` (RGB in 8-bit levels), `source` the name of a lossy
    compression or "".
    """
    count = len(table)
    if count > 2 and source:
        ordered = table[np.lexsort(table.T)]
        close = np.abs(np.diff(ordered, axis=0)).max(1) <= _NOISE  # compression may have made two from one
        if source != "AVIF" or close.any():
            message = f"The compression of {path} ({source}) has turned flat colors into {count} shades."
            return InputError(message, _HARD_EDGES)
    square = np.ones((3, 3), np.uint8)
    inside = count_numbers(compact, count, cv2.erode(compact, square) == cv2.dilate(compact, square))
    # In a square of 3, one pixel in nine has neighbors of its color only; in a blurred edge, hardly any.
    areas = np.flatnonzero(10 * inside >= count_numbers(compact, count))
    shades = _count_shades(compact, table, areas)
    two_tone = len(areas) == 2 and np.abs(table[areas[0]] - table[areas[1]]).max() >= 128
    if shades >= 3 or (two_tone and 0 < shades == count - 2):
        return InputError(
            f"{path} has soft (anti-aliased) edges: {shades} of its {count} colors are blends of two others and "
            "would become objects.",
            _HARD_EDGES,
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


def _count_shades(compact: UInt16[ndarray, "h w"], table: Table, areas: Int[ndarray, " a"]) -> int:
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


def harden(rgb: Rgb, solid: Where, path: Path, source: str, problem: InputError) -> str:
    """Reduce the `solid` pixels to flat colors, in place, and return a note about them.

    A flat color fills a square of 3x3 pixels somewhere, or is far from every mixture of those that do (the core of a
    soft brush). A shade becomes the most similar of the flat colors next to it: a rim between black and white is not
    the gray object elsewhere. Raises `problem` for too few flat colors, or too many: a photograph.
    """
    lossy = bool(source)
    flat = _flat_pixels(rgb, solid, _NOISY if lossy else _EXACT)
    if 4 * flat.sum() < solid.sum():
        raise problem
    colors = _cluster(*_count(rgb, flat))
    enough = 1 if not solid.all() else 2
    if not lossy or len(colors) < enough:  # compression adds a halo of other colors around flat ones
        colors = _add_cores(colors, *_count(rgb, solid), solid.size)
    if not enough <= len(colors) <= _MOST_FLAT:
        raise problem
    if lossy:  # restore black and white
        colors[colors.max(1) <= _BLACK] = 0
        colors[colors.min(1) >= 255 - _BLACK] = 255
    numbers, certain = _nearest(rgb, colors, _NOISY if lossy else _EXACT)
    certain &= solid & (flat | ~_between_others(colors)[numbers])
    soft = solid & ~certain
    numbers[soft] = _nearest_beside(rgb[soft].astype(np.float32), colors, numbers, certain, soft)
    for band in bands(*solid.shape):
        rgb[band][solid[band]] = colors.astype(np.uint8)[numbers[band][solid[band]]]
    used = [f"({r}, {g}, {b})" for r, g, b in colors.astype(int)]
    return (
        f"The soft edges of {path} were hardened: {100 * soft.sum() / soft.size:.2g} % of its pixels "
        f"became the nearest of its flat colors {', '.join(used)}."
    )


def _flat_pixels(rgb: Rgb, solid: Where, tolerance: int) -> Where:
    """Return the solid pixels with eight neighbors of their color, up to a tolerance."""
    square = np.ones((3, 3), np.uint8)
    flat: Where = cv2.erode(solid.astype(np.uint8), square) > 0
    for band in bands(*solid.shape):
        start, stop = max(band.start - 1, 0), min(band.stop + 1, len(rgb))
        part = rgb[start:stop]
        spread = (cv2.dilate(part, square) - cv2.erode(part, square)).max(-1)
        flat[band] &= spread[band.start - start : band.stop - start] <= tolerance
    return flat


def _count(rgb: Rgb, where: Where) -> tuple[Table, Int[ndarray, " n"]]:
    total = np.zeros(1 << 24, np.int32)
    for band in bands(*where.shape):
        pixels = rgb[band][where[band]].astype(np.int64)
        codes, counts = np.unique(pixels @ np.array([1 << 16, 1 << 8, 1]), return_counts=True)
        total[codes] += counts.astype(np.int32)
    codes = np.flatnonzero(total)
    colors = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], 1).astype(np.float32)
    return colors, total[codes].astype(np.int64)


def _cluster(colors: Table, counts: Int[ndarray, " n"]) -> Table:
    """Return the most frequent colors, none of them close to a more frequent one."""
    colors = colors[np.argsort(-counts, kind="stable")]
    found: list[Float[ndarray, " 3"]] = []
    while len(colors) and len(found) <= _MOST_FLAT:
        found.append(colors[0])
        colors = colors[np.abs(colors - colors[0]).max(1) > _SAME]
    return np.array(found, np.float32).reshape(-1, 3)


def _add_cores(colors: Table, found: Table, counts: Int[ndarray, " n"], area: int) -> Table:
    """Return the flat colors and those far from all their mixtures: cores of brushes that are soft throughout."""
    while len(colors) and len(colors) <= _MOST_FLAT // 4:
        one, other = np.triu_indices(len(colors), 0)
        distance = np.full(len(found), np.inf, np.float32)
        for start, end in zip(colors[one], colors[other], strict=True):
            distance = np.minimum(distance, _distance_to_mixtures(found, start, end))
        far = distance > _APART
        if counts[far].sum() < max(9, area // 20_000):  # a few pixels are noise
            break
        colors = np.vstack([colors, found[np.where(far, distance, -1).argmax()]])
    return colors


def _between_others(colors: Table) -> Bool[ndarray, " k"]:
    """Return which flat colors are mixtures of two others: outside of their areas, they may be shades."""
    between = np.zeros(len(colors), bool)
    one, other = np.triu_indices(len(colors), 1)
    for start, end, a, b in zip(colors[one], colors[other], one, other, strict=True):
        near = _distance_to_mixtures(colors, start, end) < _SAME
        near[[a, b]] = False
        between |= near
    return between


def _distance_to_mixtures(colors: Table, start: Float[ndarray, "3"], end: Float[ndarray, "3"]) -> Float[ndarray, " n"]:
    step = end - start
    share = np.clip((colors - start) @ step / max(float(step @ step), 1.0), 0, 1)
    return np.asarray(np.linalg.norm(colors - start - share[:, None] * step, axis=1))


def _nearest(rgb: Rgb, colors: Table, tolerance: int) -> tuple[UInt8[ndarray, "h w"], Where]:
    """Return the index of each pixel's closest flat color, and whether it has that color up to the tolerance."""
    numbers, close = np.zeros(rgb.shape[:2], np.uint8), np.zeros(rgb.shape[:2], bool)
    for band in bands(rgb.shape[0], rgb.shape[1]):
        best = np.full(close[band].shape, np.inf, np.float32)
        for number, color in enumerate(colors):
            distance = np.abs(rgb[band] - color).max(-1)
            numbers[band][distance < best] = number
            best = np.minimum(best, distance)
        close[band] = best <= tolerance
    return numbers, close


def _nearest_beside(
    pixels: Table, colors: Table, numbers: UInt8[ndarray, "h w"], certain: Where, soft: Where
) -> Int[ndarray, " n"]:
    """Return for each soft pixel the most similar of the flat colors about as near as the second nearest.

    `numbers` has the flat color of each certain pixel, `pixels` the colors of the soft ones.
    """
    away = np.full((len(colors), len(pixels)), np.inf, np.float32)
    for number in range(len(colors)):
        core = certain & (numbers == number)
        if core.any():
            away[number] = cv2.distanceTransform((~core).astype(np.uint8), cv2.DIST_L2, 3)[soft]
    second = np.partition(away, min(1, len(colors) - 1), axis=0)[min(1, len(colors) - 1)]
    distance = np.stack([((pixels - color) ** 2).sum(1) for color in colors])
    # The core of a brush that is soft throughout has no certain pixels: it is a candidate everywhere.
    candidates = (away <= 1.5 * second + 2) | ~np.isfinite(away).any(1, keepdims=True)
    return np.asarray(np.where(candidates, distance, np.inf).argmin(0))
