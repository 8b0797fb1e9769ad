"""What the pixels of a mask picture mean: ids, black and white, flat colors or transparency.

Soft edges are the trap: each shade between an object and its background would become an object of its own. They are
recognized by what they are, colors that lie between two others, in color and in place, and are never a whole area.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Int, Shaped, UInt8
from numpy import ndarray
from PIL import Image

from propagate.errors import InputError
from propagate.formats.palette import DAVIS_PALETTE
from propagate.types import BACKGROUND, VOID

MAX_OBJECTS = 254
_MANY = 32  # more colors than a hand-drawn mask has; fewer than a photograph
_MAPPING_SHOWN = 12
_ROUNDING = 6.0  # how far, in 8-bit levels, a mixture may lie beside the line between its two colors


def ids_of_picture(image: Image.Image, path: Path, source: str) -> tuple[UInt8[ndarray, "h w"], tuple[str, ...]]:
    """Object ids of a picture of any mode, and notes on how it was understood.

    Args:
        image: decoded and upright.
        path: for messages.
        source: file format, as Pillow names it.

    Raises:
        InputError: more than 254 colors or ids, soft edges, or a JPEG's noise.
    """
    if image.mode == "P":
        return _ids_of_palette(image, path, source)
    if image.mode == "1":
        return _ids_of_numbers(np.array(image, dtype=np.uint8) * np.uint8(255), path, source)
    if image.mode == "L":
        return _ids_of_numbers(np.array(image), path, source)
    if image.mode.startswith("I") or image.mode == "F":
        return _ids_of_numbers(_eight_bits(np.asarray(image), path), path, source)
    if image.mode == "LA" and image.getextrema()[1] == (255, 255):
        return _ids_of_numbers(np.array(image.getchannel("L")), path, source)
    rgba = np.asarray(image.convert("RGBA"))
    return _ids_of_colors(rgba[..., :3], rgba[..., 3], path, source)


def _ids_of_palette(image: Image.Image, path: Path, source: str) -> tuple[UInt8[ndarray, "h w"], tuple[str, ...]]:
    """The index is the id, unless the palette says by its black that index 0 is not the background."""
    index = np.array(image, dtype=np.uint8)
    table = np.zeros((256, 3), np.uint8)
    palette = np.array(image.getpalette("RGB") or [], dtype=np.uint8).reshape(-1, 3)[:256]
    table[: len(palette)] = palette
    used = np.unique(index)
    black = [int(i) for i in used if not table[i].any()]
    if table[0].any() and black:
        ids, notes = _ids_of_colors(table[index], np.full(index.shape, 255, np.uint8), path, source)
        return ids, (f"In the palette of {path} black is not color 0: its colors are taken, not its numbers.", *notes)
    if set(used.tolist()) <= {0, 255}:
        return _ids_of_numbers(index, path, source)
    if not np.array_equal(table[used], DAVIS_PALETTE[used]):  # with these colors, it is known what the numbers are
        _refuse_soft_edges(np.searchsorted(used, index), table[used].astype(np.int64), path, source)
    return index, _void_note(index, path)


def _ids_of_numbers(
    values: UInt8[ndarray, "h w"], path: Path, source: str
) -> tuple[UInt8[ndarray, "h w"], tuple[str, ...]]:
    """Grayscale: ids, or a black-and-white mask where only 0 and 255 occur."""
    used = np.unique(values)
    if set(used.tolist()) <= {0, 255}:
        note = f"{path} is black and white: white is object 1."
        return (values > 0).astype(np.uint8), (note,) if values.any() else ()
    compact = np.searchsorted(used, values)
    _refuse_soft_edges(compact, np.repeat(used.astype(np.int64)[:, None], 3, 1), path, source)
    if np.count_nonzero(used) > MAX_OBJECTS:
        raise _too_many(path, len(used), "every gray there is")
    return values, _void_note(values, path)


def _ids_of_colors(
    rgb: UInt8[ndarray, "h w 3"], alpha: UInt8[ndarray, "h w"], path: Path, source: str
) -> tuple[UInt8[ndarray, "h w"], tuple[str, ...]]:
    """Each color an object, in order of appearance; what is transparent, or else black, is background."""
    solid = alpha >= 128
    notes: list[str] = []
    if not solid.all():
        notes.append(f"{path} has transparency: transparent is background.")
        if ((alpha > 0) & (alpha < 255)).any():
            notes.append(f"The soft edge of the transparency in {path} is cut at one half.")
    packed = rgb.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
    packed[~solid] = -1
    codes, first, compact = np.unique(packed, return_index=True, return_inverse=True)
    compact = compact.reshape(packed.shape)
    table = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], 1)
    _refuse_soft_edges(compact, table, path, source)

    if not solid.all():
        background = -1
    elif 0 in codes:
        background = 0
    else:
        border = np.concatenate([packed[0], packed[-1], packed[:, 0], packed[:, -1]])
        values, counts = np.unique(border, return_counts=True)
        background = int(values[counts.argmax()])
        notes.append(f"{path} has no black: {_color_name(background)}, most of its border, is background.")
    objects = [int(i) for i in np.argsort(first) if codes[i] != background]
    if len(objects) > MAX_OBJECTS:
        raise _too_many(path, len(objects) + 1, "each would be an object")
    lookup = np.zeros(len(codes), np.uint8)
    lookup[objects] = np.arange(1, len(objects) + 1)
    named = [f"{_color_name(int(codes[i]))} is object {lookup[i]}" for i in objects[:_MAPPING_SHOWN]]
    if len(objects) > _MAPPING_SHOWN:
        named.append(f"and so on to object {len(objects)}")
    if named:
        notes.append(f"Colors of {path} in order of appearance: {', '.join(named)}.")
    return lookup[compact], tuple(notes)


def _eight_bits(values: Shaped[ndarray, "h w"], path: Path) -> UInt8[ndarray, "h w"]:
    """Deeper grayscale as 8 bits: its numbers where they fit, 0 and 255 where it has 0 and one full white."""
    white = 65535 if values.dtype.kind in "iu" else 1
    if np.isin(values, (0, white)).all() and (values.dtype.kind == "f" or (values == white).any()):
        return np.where(values == white, VOID, BACKGROUND).astype(np.uint8)
    narrow = np.asarray(np.clip(np.nan_to_num(values), 0, 255), np.uint8)
    if (narrow != values).any():
        raise InputError(
            f"{path} has values that are no object ids: they reach from {values.min()} to {values.max()}.",
            "Ids are whole numbers, 0 for background, 1 to 254 for objects. Save the mask as 8-bit PNG.",
        )
    return narrow


def _refuse_soft_edges(compact: Int[ndarray, "h w"], table: Int[ndarray, "n 3"], path: Path, source: str) -> None:
    """Raise where the colors are those of soft edges, a JPEG or a photograph.

    Args:
        compact: number of each pixel's color.
        table: RGB of the colors.
        path: of the picture.
        source: its format, as Pillow names it.
    """
    count = len(table)
    if source in ("JPEG", "MPO") and count > 2:
        raise InputError(
            f"{path} is a JPEG, whose compression has turned flat colors into {count} shades.", _hard_edges(path)
        )
    whole = _inside_one_color(compact)
    inside = np.bincount(compact[whole], minlength=count)
    # One pixel in nine is inside a square of 3; of a shade along a blurred edge, hardly any is.
    areas = np.flatnonzero(10 * inside >= np.bincount(compact.ravel(), minlength=count))
    shades = _count_shades(compact, table, areas)
    two_tone = len(areas) == 2 and np.abs(table[areas[0]] - table[areas[1]]).max() >= 128
    if shades >= 3 or (two_tone and 0 < shades == count - 2):
        raise InputError(
            f"{path} has soft (anti-aliased) edges: {shades} of its {count} colors lie only between two others, and "
            "would become objects of their own.",
            _hard_edges(path),
        )
    if count > _MANY and 2 * len(areas) < count:
        raise _too_many(path, count, "it looks like a photograph or has soft edges")


def _too_many(path: Path, count: int, cause: str) -> InputError:
    """The error for a picture that is no mask."""
    return InputError(
        f"{path} has {count} colors: {cause}; a mask has at most {MAX_OBJECTS} objects.",
        "Give a mask with one flat color for each object, saved as PNG without anti-aliasing (never as JPEG); "
        "of a cut-out picture, save the alpha channel as a mask.",
    )


def _hard_edges(path: Path) -> str:
    """How to get hard edges."""
    return (
        "Draw it without anti-aliasing (pencil instead of brush) and save it as PNG. A black-and-white mask is cut at "
        f"one half by: python -c \"from PIL import Image; Image.open('{path}').convert('L')"
        f".point(lambda v: 255 * (v > 127)).save('{path.with_name(path.stem + '-hard.png')}')\""
    )


def _inside_one_color(compact: Int[ndarray, "h w"]) -> Bool[ndarray, "h w"]:
    """Pixels whose eight neighbors all have their color."""
    values = compact.astype(np.float32)  # exact: a picture has fewer than 2^24 colors
    square = np.ones((3, 3), np.uint8)
    same: Bool[ndarray, "h w"] = cv2.erode(values, square) == cv2.dilate(values, square)
    return same


def _count_shades(compact: Int[ndarray, "h w"], table: Int[ndarray, "n 3"], areas: Int[ndarray, " a"]) -> int:
    """How many colors are no area of their own, lie at the border of two areas and are a mixture of two areas' colors.

    Args:
        compact: number of each pixel's color.
        table: RGB of the colors.
        areas: numbers of the colors that have an area.
    """
    if not 2 <= len(areas) <= _MANY:
        return 0
    is_area = np.zeros(len(table), bool)
    is_area[areas] = True
    known = is_area[compact]
    around = np.ones((7, 7), np.uint8)
    values = compact.astype(np.float32)
    lowest = cv2.erode(np.where(known, values, np.float32(np.inf)), around)
    highest = cv2.dilate(np.where(known, values, np.float32(-np.inf)), around)
    at_border = ~known & (lowest < highest)
    total = np.bincount(compact.ravel(), minlength=len(table))
    near = np.bincount(compact[at_border], minlength=len(table))
    candidates = np.flatnonzero(~is_area & (2 * near >= total))[:1024]  # enough to know what the picture is

    one, other = np.triu_indices(len(areas), 1)
    start, step = table[areas[one]].astype(np.float64), (table[areas[other]] - table[areas[one]]).astype(np.float64)
    shades = 0
    for color in table[candidates]:
        share = ((color - start) * step).sum(1) / np.maximum((step * step).sum(1), 1)
        distance = np.linalg.norm(color - start - share[:, None] * step, axis=1)
        shades += bool(((share > 0) & (share < 1) & (distance < _ROUNDING)).any())
    return shades


def _void_note(ids: UInt8[ndarray, "h w"], path: Path) -> tuple[str, ...]:
    """Say that 255 is void, where it occurs: in a hand-drawn mask it may have been meant as an object."""
    count = int((ids == VOID).sum())
    return (f"{path}: {count} pixels of value 255 are void and belong to no object.",) if count else ()


def _color_name(code: int) -> str:
    """The color as it is written in a message."""
    return "transparent" if code < 0 else f"({code >> 16}, {code >> 8 & 255}, {code & 255})"
