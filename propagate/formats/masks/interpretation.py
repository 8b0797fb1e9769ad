"""The meaning of the pixels of a mask picture: ids, black and white, flat colors or transparency."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int, Integer, Shaped, UInt8, UInt16
from numpy import ndarray
from PIL import Image

from propagate.errors import InputError
from propagate.files.pictures import PictureHeader, convert_picture, load_sixteen_bit
from propagate.formats.masks.colors import (
    TRANSPARENT,
    Rows,
    bands,
    count_colors,
    count_numbers,
    palette_opacity,
    solid_rgb,
    spread_black_and_white,
    stored_numbers,
    transparent_number,
)
from propagate.formats.masks.soft_edges import MAX_OBJECTS, harden, soft_edges, too_many
from propagate.formats.palette import DAVIS_PALETTE
from propagate.types import BACKGROUND, VOID

_MAPPING_SHOWN = 12
_FEW_PIXELS = 9  # an object of fewer may be a slip
Ids = UInt8[ndarray, "h w"]


class MaskPicture:
    """A picture that is read as a mask.

    Attributes:
        notes: sentences for the user about how `ids` understood the picture.
        colors: if colors are objects, the names of the colors of objects 1, 2 and so on; else empty.
    """

    def __init__(self, path: Path, image: Image.Image, header: PictureHeader, *, hard: bool = False) -> None:
        self._path, self._image, self._header, self._hard = path, image, header, hard
        self._source = header.lossy  # empty for exact colors
        self.notes = [f"{path}: {note}" for note in header.notes]
        self.colors: tuple[str, ...] = ()

    def ids(self) -> Ids:
        """Return the object ids; InputError for more than 254 colors or ids, soft edges, or a JPEG's noise."""
        ids = self._interpret()
        self._add_doubts(ids)
        return ids

    def _interpret(self) -> Ids:
        image, header = self._image, self._header
        if header.bits > 8:
            raise InputError(
                f"{self._path} has {header.bits} bits per channel, of which 8 can be read: objects might become one.",
                "Save it as PNG.",
            )
        if image.mode == "P":
            return self._palette(np.array(image))
        if image.mode == "PA":
            return self._palette(np.array(image.getchannel("P")), np.array(image.getchannel("A")))
        if image.mode in ("1", "L", "F") or image.mode.startswith("I"):
            stored, key = stored_numbers(image, header), transparent_number(image)
            values = spread_black_and_white(stored, image, header)
            if key is not None and (stored == key).any():
                return self._keyed_numbers(values, stored != key)
            return self._numbers(self._eight_bits(values))
        if header.sixteen_bit:
            deep = load_sixteen_bit(self._path, image, "mask")
            size = image.size[::-1]
            image.close()  # its pixels are in `deep`
            parts = map(deep, bands(*size))
            gray = ((part[..., :1] == part[..., :3]).all() and (part[..., 3] == 65535).all() for part in parts)
            if header.raw_mode.startswith("LA") and all(gray):
                return self._numbers(self._eight_bits(np.concatenate([deep(band)[..., 0] for band in bands(*size)])))
            return self._colors(deep, size)
        if image.mode == "LA" and image.getextrema()[1] == (255, 255):
            return self._numbers(np.array(image.getchannel("L")))

        def rows(band: slice) -> UInt8[ndarray, "n w 4"]:
            part = image.crop((0, band.start, image.width, band.stop))
            return np.asarray(convert_picture(part, "RGBA", self._path, "mask"))

        return self._colors(rows, image.size[::-1])

    def _palette(self, index: Ids, alpha: UInt8[ndarray, "h w"] | None = None) -> Ids:
        """Take the index for the id, unless the palette's black or transparency shows that 0 is not background."""
        table = np.zeros((256, 3), np.uint8)
        palette = np.array(self._image.getpalette("RGB") or [], dtype=np.uint8).reshape(-1, 3)[:256]
        table[: len(palette)] = palette
        opacity = palette_opacity(self._image)

        def rows(band: slice) -> UInt8[ndarray, "n w 4"]:
            part = index[band]
            return np.dstack([table[part], opacity[part] if alpha is None else alpha[band]])

        solid = (opacity >= 128)[index] if alpha is None else alpha >= 128
        used = np.flatnonzero(count_numbers(index, 256, solid))
        if not solid.all():
            named = len(used) > 1 and np.array_equal(table[used], DAVIS_PALETTE[used])
            if 0 in used and not named:
                return self._colors(rows, index.shape)
            shades = opacity[count_numbers(index, 256) > 0] if alpha is None else alpha
            self._add_transparency(bool(((shades > 0) & (shades < 255)).any()))
            return self._palette_numbers(np.where(solid, index, np.uint8(0)), table, used)
        if table[0].any() and not table[used].any(1).all():
            self.notes.append(
                f"In the palette of {self._path} black is not color 0: its colors are taken, not its numbers."
            )
            return self._colors(rows, index.shape)
        return self._palette_numbers(index, table, used)

    def _palette_numbers(self, index: Ids, table: UInt8[ndarray, "256 3"], used: Shaped[ndarray, " n"]) -> Ids:
        present = np.flatnonzero(count_numbers(index, 256))
        if set(present.tolist()) <= {0, 255}:
            return self._numbers(index)
        if not np.array_equal(table[used], DAVIS_PALETTE[used]):  # with these colors, the numbers are known to be ids
            shades = table[present].astype(np.float64)
            problem = soft_edges(_compact(index, present), shades, self._path, self._source)
            if problem is not None and self._hard:
                return self._colors(lambda band: _opaque(table[index[band]]), index.shape)
            if problem is not None:
                raise problem
        self._add_void(index)
        return index

    def _keyed_numbers(self, values: Integer[ndarray, "h w"], solid: Bool[ndarray, "h w"]) -> Ids:
        """Interpret grayscale with one transparent value; 0, if it is another one, is an object like the others."""
        if (values[solid] == 0).any():
            deep = values.astype(np.uint16)

            def rows(band: slice) -> UInt16[ndarray, "n w 4"]:
                part = _opaque(np.repeat(deep[band][..., None], 3, 2))
                part[~solid[band], 3] = 0
                return part

            return self._colors(rows, values.shape)
        self._add_transparency(False)
        return self._numbers(self._eight_bits(np.where(solid, values, np.zeros_like(values))))

    def _numbers(self, values: Ids) -> Ids:
        """Interpret grayscale: ids, or a black-and-white mask if only 0 and 255 occur."""
        used = np.flatnonzero(count_numbers(values, 256))
        if set(used.tolist()) <= {0, 255}:
            if values.any():
                self.notes.append(f"{self._path} is black and white: white is object 1.")
            return (values > 0).astype(np.uint8)
        table = np.repeat(used.astype(np.float64)[:, None], 3, 1)
        problem = soft_edges(_compact(values, used), table, self._path, self._source)
        if problem is not None:
            if not self._hard:
                raise problem
            rgb = np.repeat(values[..., None], 3, 2)
            self.notes.append(harden(rgb, np.ones(values.shape, bool), self._path, self._source, problem))
            self._source, self._hard = "", False
            return self._numbers(np.ascontiguousarray(rgb[..., 0]))
        if np.count_nonzero(used) > MAX_OBJECTS:
            raise too_many(self._path, len(used), "it has every shade of gray")
        self._add_void(values)
        return values

    def _colors(self, rows: Rows, size: tuple[int, int]) -> Ids:
        """Number the colors in order of appearance; transparent or else black is background."""
        colors = count_colors(rows, *size)
        if not colors.solid:
            self._add_transparency(colors.soft)
        codes, compact = colors.codes, colors.compact
        problem: InputError | None
        if compact is None:
            problem = too_many(self._path, len(codes), "it looks like a photograph or has soft edges")
        else:
            table = np.stack([codes >> 32, codes >> 16 & 0xFFFF, codes & 0xFFFF], 1).astype(np.float64)
            table *= 255 / max(255.0, table.max(initial=0))
            table[codes == TRANSPARENT] = 0
            problem = soft_edges(compact, table, self._path, self._source)
        if problem is not None:
            if not self._hard:
                raise problem
            del colors, compact
            rgb, solid = solid_rgb(rows, *size)
            self._image.close()  # its pixels are in `rgb`
            self.notes.append(harden(rgb, solid, self._path, self._source, problem))
            colors = count_colors(lambda band: np.dstack([rgb[band], np.uint8(255) * solid[band]]), *size)
            codes, compact = colors.codes, colors.compact
        assert compact is not None  # a problem otherwise

        if not colors.solid:
            background = TRANSPARENT
        elif 0 in codes:
            background = 0
        else:
            values, counts = np.unique(codes[_border(compact)], return_counts=True)
            background = int(values[counts.argmax()])
            self.notes.append(
                f"{self._path} has no black: {_color_name(background)}, most of its border, is background."
            )
        objects = [int(i) for i in np.argsort(colors.first) if codes[i] != background]
        if len(objects) > MAX_OBJECTS:
            raise too_many(self._path, len(objects) + 1, "each would be an object")
        lookup = np.zeros(len(codes), np.uint8)
        lookup[objects] = np.arange(1, len(objects) + 1)
        self.colors = tuple(_color_name(int(codes[i])) for i in objects)
        named = [f"{color} is object {number}" for number, color in enumerate(self.colors[:_MAPPING_SHOWN], start=1)]
        if len(objects) > _MAPPING_SHOWN:
            named.append(f"and so on to object {len(objects)}")
        if named:
            self.notes.append(f"Colors of {self._path} in order of appearance: {', '.join(named)}.")
        return np.asarray(lookup[compact])

    def _eight_bits(self, values: Shaped[ndarray, "h w"]) -> Ids:
        """Return deeper grayscale as 8 bits: the same numbers if they fit, 0 and 255 if it has 0 and one full white."""
        if values.dtype == np.uint8:
            return values
        highest = values.max(initial=0)
        whites = (1,) if values.dtype.kind == "f" else tuple(2**bits - 1 for bits in (*range(9, 17), 31, 32))
        if highest in whites and np.isin(values, (0, highest)).all():
            depth = int(highest).bit_length()
            if values.dtype.kind != "f" and depth not in (16, 32):
                self.notes.append(f"{self._path} holds {depth}-bit values: {highest:g} is taken as white.")
            return np.where(values == highest, VOID, BACKGROUND).astype(np.uint8)
        narrow = np.asarray(np.clip(np.nan_to_num(values), 0, 255), np.uint8)
        if (narrow != values).any():
            raise InputError(
                f"{self._path} has values that are not object ids, from {values.min()} to {values.max()}.",
                "Ids are whole numbers, 0 for background, 1 to 254 for objects. Save the mask as 8-bit PNG.",
            )
        return narrow

    def _add_transparency(self, soft: bool) -> None:
        self.notes.append(f"{self._path} has transparency: transparent is background.")
        if soft:
            self.notes.append(f"The soft edge of the transparency in {self._path} is cut at one half.")

    def _add_void(self, ids: Ids) -> None:
        """Note that 255 is void: in a hand-drawn mask it may be meant as an object."""
        if count := int((ids == VOID).sum()):
            self.notes.append(f"{self._path}: {count} pixels of value 255 are void and belong to no object.")

    def _add_doubts(self, ids: Ids) -> None:
        """Note objects that fill the frame or its border, as a background does, or that may be a slip of the brush."""
        border = _border(ids)
        counts, around = count_numbers(ids, 256), np.bincount(border, minlength=256)
        counts[[BACKGROUND, VOID]] = around[[BACKGROUND, VOID]] = 0
        for i in np.flatnonzero((counts > 0) & (counts < _FEW_PIXELS))[:_MAPPING_SHOWN]:
            self.notes.append(f"Object {i} of {self._path} has only {counts[i]} pixel{'' if counts[i] == 1 else 's'}.")
        for numbers, size, where, most in ((counts, ids.size, "frame", 0.95), (around, border.size, "border", 0.75)):
            if numbers.max() >= most * size:
                share = f"covers {100 * numbers.max() / size:.0f} % of the {where}"
                self.notes.append(
                    f"Object {numbers.argmax()} of {self._path} {share}: if it is the background, the mask is inverted."
                )
                return


def _border(values: Shaped[ndarray, "h w"]) -> Shaped[ndarray, " n"]:
    return np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])


def _compact(values: Ids, used: Int[ndarray, " n"]) -> UInt16[ndarray, "h w"]:
    """Return the index in `used` of each pixel's value."""
    lookup = np.zeros(256, np.uint16)
    lookup[used] = np.arange(len(used))
    return np.asarray(lookup[values])


def _opaque(rgb: Shaped[ndarray, "n w 3"]) -> Shaped[ndarray, "n w 4"]:
    return np.dstack([rgb, np.full(rgb.shape[:2], np.iinfo(rgb.dtype).max, rgb.dtype)])


def _color_name(code: int) -> str:
    return "transparent" if code < 0 else f"({code >> 32}, {code >> 16 & 0xFFFF}, {code & 0xFFFF})"
