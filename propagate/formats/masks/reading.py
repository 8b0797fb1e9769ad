"""Read and write masks.

`write_mask` writes 8-bit indexed PNG, index = object id, DAVIS palette; `read_indexed_png` is the exact inverse.
`read_mask` also reads pictures that were drawn by hand or exported by other tools (see `pictures.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from propagate.errors import InputError
from propagate.files.atomic import atomic_path
from propagate.files.pictures import inspect_picture, load_picture
from propagate.formats.masks.colors import stored_numbers
from propagate.formats.masks.interpretation import MaskPicture
from propagate.formats.palette import DAVIS_PALETTE
from propagate.types import Mask, MaskLike

# For a mask of 480x854, level 4 takes 1.5 ms, level 6 2.2 ms and level 9 12 ms, for a sixth fewer bytes.
_COMPRESS_LEVEL = 4
_PALETTE_BYTES = DAVIS_PALETTE.tobytes()


@dataclass(frozen=True, eq=False)
class MaskFile:
    """A mask, sentences for the user about its file, and, if colors are objects, the names of their colors in order."""

    mask: Mask
    notes: tuple[str, ...] = ()
    colors: tuple[str, ...] = ()


def read_mask(
    path: str | Path, *, frame_size: tuple[int, int] | None = None, resize: bool = False, harden: bool = False
) -> Mask:
    """Read a first-frame mask. `read_mask_file` returns notes, too.

    Args:
        path: the picture.
        frame_size: required (height, width) in pixels; None accepts any.
        resize: resize another size to `frame_size` by nearest neighbor.
        harden: replace each shade of soft edges, or of a JPEG, by the nearest flat color instead of raising an error.

    Raises:
        InputError: unreadable, of the wrong size, without an object, with more than 254 colors or ids, or drawn with
            soft edges, which would become objects of their own.
    """
    return read_mask_file(path, frame_size=frame_size, resize=resize, harden=harden).mask


def read_mask_file(
    path: str | Path, *, frame_size: tuple[int, int] | None = None, resize: bool = False, harden: bool = False
) -> MaskFile:
    """Read a first-frame mask with notes on how the file was understood. Arguments and errors as `read_mask`.

    Palette PNG and grayscale: the number is the object id, 255 void. Only 0 and 255: object 1. Colors: each an object,
    in order of appearance from the top left, row by row; black is background. Transparent is background.
    """
    path = Path(path)
    if frame_size is not None and not resize and (size := inspect_picture(path, "mask").size) != frame_size:
        raise InputError(
            f"{_sizes(size, path, frame_size)}.",
            "Give --resize-mask to resize it, or draw it on a frame of this video.",
        )
    picture = MaskPicture(path, *load_picture(path, "mask"), hard=harden)
    mask = Mask(picture.ids())
    if not mask.objects:
        raise InputError(f"{path} has no object: every pixel is background or void.", "Paint the object into the mask.")
    if frame_size is not None and mask.size != frame_size:
        mask, note = _resized(mask, path, frame_size)
        picture.notes.append(note)
    return MaskFile(mask, tuple(picture.notes), picture.colors)


def read_indexed_png(path: str | Path) -> Mask:
    """Read the ids of a PNG of one channel of 1 to 8 bits without interpretation: the inverse of `write_mask`."""
    path = Path(path)
    image, header = load_picture(path, "mask")
    if image.mode not in ("P", "L", "1"):
        raise InputError(
            f"{path} is not an indexed PNG: its pixels are {image.mode}, not numbers from 0 to 255.",
            "Save it with a palette, one index for each object.",
        )
    return Mask(stored_numbers(image, header))


def write_mask(path: str | Path, mask: MaskLike) -> None:
    """Write an indexed PNG with the DAVIS palette, atomically; the format is PNG whatever the suffix.

    Ids 0 to 255 of the mask, or of an array (see `Mask`), are stored unchanged. InputError if it cannot be written.
    """
    ids = (mask if isinstance(mask, Mask) else Mask(mask)).ids
    image = Image.fromarray(np.ascontiguousarray(ids))
    image.putpalette(_PALETTE_BYTES)
    with atomic_path(path) as temporary:
        image.save(temporary, format="PNG", compress_level=_COMPRESS_LEVEL)


def _sizes(size: tuple[int, int], path: Path, frame_size: tuple[int, int]) -> str:
    (height, width), (frame_height, frame_width) = size, frame_size
    return f"{path} is {width}x{height}, but the frame is {frame_width}x{frame_height}"


def _resized(mask: Mask, path: Path, frame_size: tuple[int, int]) -> tuple[Mask, str]:
    height, width = mask.size
    frame_height, frame_width = frame_size
    sizes = _sizes(mask.size, path, frame_size)
    image = Image.fromarray(mask.ids).resize((frame_width, frame_height), Image.Resampling.NEAREST)
    resized = Mask(np.array(image, dtype=np.uint8))
    if lost := [str(i) for i in mask.objects if i not in resized.objects]:
        raise InputError(f"{sizes}: resized to it, object {', '.join(lost)} has no pixel left.", "Draw it larger.")
    # up to two percent is rounding
    stretched = abs(width * frame_height / (height * frame_width) - 1) > 0.02
    return resized, f"{sizes}: it was resized" + (", which stretches it." if stretched else ".")
