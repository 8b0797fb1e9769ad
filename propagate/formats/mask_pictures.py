"""What the pixels of a mask picture mean: ids, black and white, flat colors or transparency."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int, Integer, Shaped, UInt8, UInt16
from numpy import ndarray
from PIL import Image

from propagate.errors import InputError
from propagate.formats.hardening import harden
from propagate.formats.palette import DAVIS_PALETTE
from propagate.formats.soft_edges import MAX_OBJECTS, soft_edges, too_many
from propagate.pictures import PictureHeader, convert_picture, load_sixteen_bit
from propagate.types import BACKGROUND, VOID

_MAPPING_SHOWN = 12
_TRANSPARENT = -1
_INVERTED_SHARE = 0.95
Ids = UInt8[ndarray, "h w"]
Notes = tuple[str, ...]


class MaskPicture:
    """One picture that is to be understood as a mask.

    Args:
        path: for messages.
        source: name of its lossy compression, empty for exact ones.
        hard: cut soft edges instead of refusing them.
    """

    def __init__(self, path: Path, source: str, *, hard: bool = False) -> None:
        self._path = path
        self._source = source
        self._hard = hard

    def ids(self, image: Image.Image, header: PictureHeader) -> tuple[Ids, Notes]:
        """Object ids of a picture of any mode, and notes on how it was understood.

        Args:
            image: decoded and upright.
            header: of its file.

        Raises:
            InputError: more than 254 colors or ids, soft edges, or a JPEG's noise.
        """
        ids, notes = self._understood(image, header)
        return ids, (*notes, *self._inverted(ids))

    def _understood(self, image: Image.Image, header: PictureHeader) -> tuple[Ids, Notes]:
        if header.bits > 8:
            raise InputError(
                f"{self._path} has {header.bits} bits per channel, of which 8 can be read: objects might become one.",
                "Save it as PNG.",
            )
        if image.mode == "P":
            return self._palette(np.array(image), image, header)
        if image.mode == "PA":
            index, alpha = (np.array(image.getchannel(band)) for band in ("P", "A"))
            return self._palette(index, image, header, alpha)
        if image.mode in ("1", "L", "F") or image.mode.startswith("I"):
            values = stored_numbers(image, header)
            key = image.info.get("transparency")
            if isinstance(key, int) and (values == key).any():
                return self._keyed_numbers(values, values != key)
            return self._numbers(*self._eight_bits(values))
        if header.sixteen_bit:
            deep = load_sixteen_bit(self._path, image, "mask")
            gray = (deep[..., :1] == deep[..., :3]).all()
            if gray and header.raw_mode.startswith("LA") and (deep[..., 3] == 65535).all():
                return self._numbers(*self._eight_bits(deep[..., 0]))
            return self._colors(deep[..., :3], deep[..., 3].astype(np.float32) / 65535)
        if image.mode == "LA" and image.getextrema()[1] == (255, 255):
            return self._numbers(np.array(image.getchannel("L")))
        rgba = np.asarray(convert_picture(image, "RGBA", self._path, "mask"))
        return self._colors(rgba[..., :3], rgba[..., 3].astype(np.float32) / 255)

    def _palette(
        self, index: Ids, image: Image.Image, header: PictureHeader, alpha: UInt8[ndarray, "h w"] | None = None
    ) -> tuple[Ids, Notes]:
        """The index is the id, unless the palette says by its black or its transparency that 0 is no background."""
        table = np.zeros((256, 3), np.uint8)
        palette = np.array(image.getpalette("RGB") or [], dtype=np.uint8).reshape(-1, 3)[:256]
        table[: len(palette)] = palette
        opacity = _palette_opacity(image)[index] if alpha is None else alpha.astype(np.float32) / 255
        solid = opacity >= 0.5
        used = np.unique(index[solid])
        if not solid.all():
            named = len(used) > 1 and np.array_equal(table[used], DAVIS_PALETTE[used])
            if 0 in used and not named:
                return self._colors(table[index], opacity)
            ids, notes = self._palette_numbers(np.where(solid, index, np.uint8(0)), table, used)
            return ids, (*self._transparency_notes(opacity), *notes)
        black = [int(i) for i in used if not table[i].any()]
        if table[0].any() and black:
            ids, notes = self._colors(table[index], opacity)
            note = f"In the palette of {self._path} black is not color 0: its colors are taken, not its numbers."
            return ids, (note, *notes)
        return self._palette_numbers(index, table, used)

    def _palette_numbers(
        self, index: Ids, table: UInt8[ndarray, "256 3"], used: Shaped[ndarray, " n"]
    ) -> tuple[Ids, Notes]:
        if set(np.unique(index).tolist()) <= {0, 255}:
            return self._numbers(index)
        if not np.array_equal(table[used], DAVIS_PALETTE[used]):  # with these colors, it is known what the numbers are
            present = np.unique(index)
            problem = soft_edges(
                np.searchsorted(present, index), table[present].astype(np.float64), self._path, self._source
            )
            if problem is not None and self._hard:
                return self._colors(table[index], np.ones(index.shape, np.float32))
            if problem is not None:
                raise problem
        return index, self._void_note(index)

    def _keyed_numbers(self, values: Integer[ndarray, "h w"], solid: Bool[ndarray, "h w"]) -> tuple[Ids, Notes]:
        """Grayscale of which one value is transparent: 0, where it is not, is an object like the others."""
        if (values[solid] == 0).any():
            gray = np.repeat(values[..., None], 3, 2)
            return self._colors(gray, solid.astype(np.float32))
        narrow, notes = self._eight_bits(np.where(solid, values, np.zeros_like(values)))
        ids, more = self._numbers(narrow)
        return ids, (*self._transparency_notes(solid.astype(np.float32)), *notes, *more)

    def _numbers(self, values: Ids, notes: Notes = ()) -> tuple[Ids, Notes]:
        """Grayscale: ids, or a black-and-white mask where only 0 and 255 occur."""
        used = np.unique(values)
        if set(used.tolist()) <= {0, 255}:
            note = f"{self._path} is black and white: white is object 1."
            return (values > 0).astype(np.uint8), (*notes, *((note,) if values.any() else ()))
        compact = np.searchsorted(used, values)
        table = np.repeat(used.astype(np.float64)[:, None], 3, 1)
        problem = soft_edges(compact, table, self._path, self._source)
        if problem is not None:
            if not self._hard:
                raise problem
            solid = np.ones(values.shape, bool)
            rgb, note = harden(np.repeat(values[..., None], 3, 2), solid, self._path, self._source, problem)
            self._source, self._hard = "", False
            return self._numbers(np.ascontiguousarray(rgb[..., 0]), (*notes, note))
        if np.count_nonzero(used) > MAX_OBJECTS:
            raise too_many(self._path, len(used), "every gray there is")
        return values, (*notes, *self._void_note(values))

    def _colors(
        self,
        rgb: UInt8[ndarray, "h w 3"] | UInt16[ndarray, "h w 3"] | Int[ndarray, "h w 3"],
        opacity: Shaped[ndarray, "h w"],
    ) -> tuple[Ids, Notes]:
        """Each color an object, in order of appearance; what is transparent, or else black, is background."""
        solid = opacity >= 0.5
        notes = list(self._transparency_notes(opacity))
        codes, first, compact = _packed(rgb, solid)
        table = np.stack([codes >> 32, codes >> 16 & 0xFFFF, codes & 0xFFFF], 1).astype(np.float64)
        table *= 255 / max(255.0, table.max(initial=0))
        table[codes == _TRANSPARENT] = 0
        problem = soft_edges(compact, table, self._path, self._source)
        if problem is not None:
            if not self._hard:
                raise problem
            if rgb.dtype != np.uint8:
                rgb = (rgb >> 8).astype(np.uint8)
            rgb, note = harden(np.ascontiguousarray(rgb), solid, self._path, self._source, problem)
            notes.append(note)
            codes, first, compact = _packed(rgb, solid)

        if not solid.all():
            background = _TRANSPARENT
        elif 0 in codes:
            background = 0
        else:
            border = codes[np.concatenate([compact[0], compact[-1], compact[:, 0], compact[:, -1]])]
            values, counts = np.unique(border, return_counts=True)
            background = int(values[counts.argmax()])
            notes.append(f"{self._path} has no black: {_color_name(background)}, most of its border, is background.")
        objects = [int(i) for i in np.argsort(first) if codes[i] != background]
        if len(objects) > MAX_OBJECTS:
            raise too_many(self._path, len(objects) + 1, "each would be an object")
        lookup = np.zeros(len(codes), np.uint8)
        lookup[objects] = np.arange(1, len(objects) + 1)
        named = [f"{_color_name(int(codes[i]))} is object {lookup[i]}" for i in objects[:_MAPPING_SHOWN]]
        if len(objects) > _MAPPING_SHOWN:
            named.append(f"and so on to object {len(objects)}")
        if named:
            notes.append(f"Colors of {self._path} in order of appearance: {', '.join(named)}.")
        return lookup[compact], tuple(notes)

    def _eight_bits(self, values: Shaped[ndarray, "h w"]) -> tuple[Ids, Notes]:
        """Deeper grayscale as 8 bits: its numbers where they fit, 0 and 255 where it has 0 and one full white."""
        if values.dtype == np.uint8:
            return values, ()
        highest = values.max(initial=0)
        whites = (1,) if values.dtype.kind == "f" else tuple(2**bits - 1 for bits in (*range(9, 17), 31, 32))
        if highest in whites and np.isin(values, (0, highest)).all():
            depth = int(highest).bit_length()
            note = f"{self._path} holds {depth}-bit values: {highest:g} is taken as white."
            odd = values.dtype.kind != "f" and depth not in (16, 32)
            return np.where(values == highest, VOID, BACKGROUND).astype(np.uint8), (note,) if odd else ()
        narrow = np.asarray(np.clip(np.nan_to_num(values), 0, 255), np.uint8)
        if (narrow != values).any():
            raise InputError(
                f"{self._path} has values that are no object ids: they reach from {values.min()} to {values.max()}.",
                "Ids are whole numbers, 0 for background, 1 to 254 for objects. Save the mask as 8-bit PNG.",
            )
        return narrow, ()

    def _transparency_notes(self, opacity: Shaped[ndarray, "h w"]) -> Notes:
        if (opacity >= 0.5).all():
            return ()
        note = f"{self._path} has transparency: transparent is background."
        soft = ((opacity > 0) & (opacity < 1)).any()
        return (note, f"The soft edge of the transparency in {self._path} is cut at one half.") if soft else (note,)

    def _void_note(self, ids: Ids) -> Notes:
        """Say that 255 is void, where it occurs: in a hand-drawn mask it may have been meant as an object."""
        count = int((ids == VOID).sum())
        return (f"{self._path}: {count} pixels of value 255 are void and belong to no object.",) if count else ()

    def _inverted(self, ids: Ids) -> Notes:
        """Say that an object may be the background: it is nearly everything, or all around."""
        corners = {int(ids[y, x]) for y in (0, -1) for x in (0, -1)}
        counts = np.bincount(ids.ravel(), minlength=256)
        counts[[BACKGROUND, VOID]] = 0
        largest = int(counts.argmax())
        if counts[largest] >= _INVERTED_SHARE * ids.size:
            share = f"covers {100 * counts[largest] / ids.size:.0f} % of the frame"
        elif len(corners) == 1 and not corners & {BACKGROUND, VOID} and min(ids.shape) > 2:
            largest, share = corners.pop(), "reaches all four corners of the frame"
        else:
            return ()
        return (f"Object {largest} of {self._path} {share}: if it is the background, the mask is inverted.",)


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


def _packed(
    rgb: Shaped[ndarray, "h w 3"], solid: Bool[ndarray, "h w"]
) -> tuple[Int[ndarray, " n"], Int[ndarray, " n"], Int[ndarray, "h w"]]:
    """The colors as one number each, where each is met first, and the number of each pixel's color."""
    packed = rgb.astype(np.int64) @ np.array([1 << 32, 1 << 16, 1])
    packed[~solid] = _TRANSPARENT
    codes, first, compact = np.unique(packed, return_index=True, return_inverse=True)
    return codes, first, compact.reshape(packed.shape)


def _palette_opacity(image: Image.Image) -> Shaped[ndarray, " 256"]:
    """Opacity of each entry of a palette, from 0 to 1."""
    opacity = np.ones(256, np.float32)
    key = image.info.get("transparency")
    if isinstance(key, bytes):
        listed = np.frombuffer(key, np.uint8)[:256]
        opacity[: len(listed)] = listed.astype(np.float32) / 255
    elif isinstance(key, int) and 0 <= key < 256:
        opacity[key] = 0
    return opacity


def _color_name(code: int) -> str:
    """The color as it is written in a message."""
    return "transparent" if code < 0 else f"({code >> 32}, {code >> 16 & 0xFFFF}, {code & 0xFFFF})"
