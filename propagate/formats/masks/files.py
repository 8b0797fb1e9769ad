"""Masks as files: indexed PNG out, and whatever people have in.

Written: 8-bit indexed PNG, index = object id, DAVIS palette. `read_indexed_png` is the exact inverse.
`read_mask` also understands pictures that were drawn by hand or exported by other tools (see `mask_pictures`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from propagate.errors import InputError
from propagate.files.atomic import atomic_path
from propagate.files.pictures import inspect_picture, load_picture
from propagate.formats.masks.pictures import MaskPicture
from propagate.formats.masks.stored_values import stored_numbers
from propagate.formats.palette import DAVIS_PALETTE
from propagate.types import Mask, MaskLike

# Masks are flat: level 4 takes 1.5 ms for 480x854 and a fifth more bytes than level 6 does in 2.2 ms or 9 in 12 ms.
_COMPRESS_LEVEL = 4
_PALETTE_BYTES = DAVIS_PALETTE.tobytes()


@dataclass(frozen=True, eq=False)
class MaskFile:
    """A mask and how its file was understood.

    Attributes:
        mask: the objects.
        notes: sentences for the user: what colors became which object, what was resized, how much is void.
        colors: where colors are objects, the name of that of object 1, 2 and so on; else empty.
    """

    mask: Mask
    notes: tuple[str, ...] = ()
    colors: tuple[str, ...] = ()


def read_mask(
    path: str | Path, *, frame_size: tuple[int, int] | None = None, resize: bool = False, harden: bool = False
) -> Mask:
    """Read a first-frame mask; `read_mask_file` does the same and says how the file was understood.

    Args:
        path: the picture.
        frame_size: (height, width) in pixels that the mask must have; None accepts any.
        resize: bring another size to `frame_size` by nearest neighbor.
        harden: take each shade of soft edges, or of a JPEG, for the nearest flat color instead of refusing the picture.

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
    if frame_size is not None and not resize:
        _check_size(inspect_picture(path, "mask").size, path, frame_size)
    image, header = load_picture(path, "mask")
    picture = MaskPicture(path, header.lossy, hard=harden)
    ids, notes = picture.ids(image, header)
    notes = (*(f"{path}: {note}" for note in header.notes), *notes)
    mask = Mask(ids)
    if not mask.objects:
        raise InputError(f"{path} has no object: every pixel is background or void.", "Paint the object into the mask.")
    if frame_size is not None and mask.size != frame_size:
        mask, note = _fitted(mask, path, frame_size)
        notes = (*notes, note)
    return MaskFile(mask, notes, picture.colors)


def read_indexed_png(path: str | Path) -> Mask:
    """Read the ids of an indexed or grayscale PNG as they stand: no interpretation, and no object is needed.

    The inverse of `write_mask`, and the reading of DAVIS-2017 annotations and results.

    Args:
        path: a picture of 1 to 8 bits per pixel with one channel.

    Raises:
        InputError: unreadable, or not of one 8-bit channel.
    """
    path = Path(path)
    image, header = load_picture(path, "mask")
    if image.mode not in ("P", "L", "1"):
        raise InputError(
            f"{path} is no indexed PNG: its pixels are {image.mode}, not numbers from 0 to 255.",
            "Save it with a palette, one index for each object.",
        )
    return Mask(stored_numbers(image, header))


def write_mask(path: str | Path, mask: MaskLike) -> None:
    """Write an indexed PNG with the DAVIS palette, whole or not at all.

    Args:
        path: where to; the format is PNG whatever the suffix.
        mask: a mask, or an array of ids (see `Mask`); ids 0 to 255 are stored as they are.

    Raises:
        InputError: the place cannot be written.
    """
    ids = (mask if isinstance(mask, Mask) else Mask(mask)).ids
    image = Image.fromarray(np.ascontiguousarray(ids))
    image.putpalette(_PALETTE_BYTES)
    with atomic_path(path) as temporary:
        image.save(temporary, format="PNG", compress_level=_COMPRESS_LEVEL)


def _check_size(size: tuple[int, int], path: Path, frame_size: tuple[int, int]) -> None:
    if size != frame_size:
        raise InputError(
            f"{_sizes(size, path, frame_size)}.",
            "Give --resize-mask to resize it, or draw it on a frame of this video.",
        )


def _sizes(size: tuple[int, int], path: Path, frame_size: tuple[int, int]) -> str:
    (height, width), (frame_height, frame_width) = size, frame_size
    return f"{path} is {width}x{height}, but the frame is {frame_width}x{frame_height}"


def _fitted(mask: Mask, path: Path, frame_size: tuple[int, int]) -> tuple[Mask, str]:
    """The mask at the size of the frame, and a note on what was done to it."""
    height, width = mask.size
    frame_height, frame_width = frame_size
    sizes = _sizes(mask.size, path, frame_size)
    # Nearest: anything else would mix ids.
    image = Image.fromarray(mask.ids).resize((frame_width, frame_height), Image.Resampling.NEAREST)
    fitted = Mask(np.array(image, dtype=np.uint8))
    lost = [str(i) for i in mask.objects if i not in fitted.objects]
    if lost:
        raise InputError(f"{sizes}: resized to it, object {', '.join(lost)} has no pixel left.", "Draw it larger.")
    # Two percent is rounding; beyond it the shapes themselves differ.
    stretched = abs(width * frame_height / (height * frame_width) - 1) > 0.02
    return fitted, f"{sizes}: it was resized" + (", which stretches it." if stretched else ".")
