"""Read pictures of other people: known formats only, with an error of ours for whatever Pillow raises.

Pillow guesses the format from the content, whatever the suffix, and has plugins that start other programs (EPS runs
Ghostscript). It raises a dozen kinds of exceptions for damaged files, and silently reads the first of several pictures.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
from jaxtyping import UInt16
from numpy import ndarray
from PIL import Image, ImageOps, UnidentifiedImageError

from propagate.errors import InputError, PropagateWarning
from propagate.files.documents import check_regular_file
from propagate.files.picture_containers import avif_bits, is_turned_late, lossy_compression
from propagate.files.truncated_pictures import load_whole

FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF", "PPM", "AVIF")
MAX_PIXELS = 2**26  # 8192 x 8192, twice 8K video
MAX_BYTES = 2**30
_MAX_PAGES = 32
_REDUCED, _TRANSPARENCY_MASK = 1, 4  # bits of TIFF's NewSubfileType
_NEW_SUBFILE_TYPE, _SUB_IFDS, _ORIENTATION = 254, 330, 274
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")

_ROWS = 128  # to compare at a time
# `warnings.catch_warnings` changes the state of the whole process.
_lock = threading.RLock()


@dataclass(frozen=True)
class PictureHeader:
    """The description of a picture in its file."""

    size: tuple[int, int]  # (height, width) in pixels, upright
    format: str  # Pillow's name: "PNG", "JPEG", "MPO", ...
    mode: str  # Pillow's mode of the decoded pixels: "P", "L", "RGB", "I;16", ...
    raw_mode: str  # Pillow's name of the stored pixels, such as "RGB;16B" or "L;4"; may be empty
    bits: int  # per channel: more than 8 for an AVIF or PPM of which Pillow keeps the upper 8
    highest: int  # value of white of a PPM, which Pillow scales to 255 or 65535; else 0
    lossy: str  # name of a compression that may have changed colors; else empty
    transparent: bool  # an alpha channel, a transparent color or palette entry
    pictures: int  # in the file; this is the primary one (JPEG with a preview, TIFF with a thumbnail)
    warnings: tuple[str, ...] = ()  # from Pillow, such as damaged metadata

    @property
    def sixteen_bit(self) -> bool:
        """Whether there are 16 bits per channel; in modes RGB and RGBA, Pillow drops the lower 8 of them."""
        return self.mode.startswith("I;16") or ";16" in self.raw_mode or (self.mode == "I" and self.highest > 255)

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for the user, without the file's name."""
        several = f"It holds {self.pictures} pictures: the primary one is read, not the preview."
        return (*((several,) if self.pictures > 1 else ()), *(f"Reading it: {text}." for text in self.warnings))


def inspect_picture(path: Path, what: str = "picture") -> PictureHeader:
    """Read the header of a picture. `what` names its role in messages ("mask").

    Raises:
        InputError: missing, not a regular file, not a picture of a known format, damaged, over `MAX_PIXELS` pixels, or
            several pictures without a primary one.
    """
    with _opened(path, what) as (image, file, pictures, caught):
        if image.format == "PNG" and is_turned_late(file):
            return load_picture(path, what)[1]
        header = _header(image, file, pictures)
        # A PNG's own getexif would decode all of its pixels; a TIFF's size is already that of the upright picture.
        if image.format != "TIFF" and Image.Image.getexif(image).get(_ORIENTATION, 1) in (5, 6, 7, 8):
            header = replace(header, size=header.size[::-1])
        return replace(header, warnings=_texts(caught))


def is_tiled_still(path: Path) -> bool:
    """Return whether a file is an AVIF or HEIC still: a video decoder may return one tile of it."""
    with path.open("rb") as file:
        start = file.read(12)
    return start[4:8] == b"ftyp" and start[8:12] in (b"avif", *_HEIC_BRANDS[:4], b"mif1")


def load_picture(path: Path, what: str = "picture") -> tuple[Image.Image, PictureHeader]:
    """Decode a picture, upright by its EXIF orientation, and return it with its header; see `inspect_picture`."""
    with _opened(path, what) as (image, file, pictures, caught):
        place = file.tell()
        header = _header(image, file, pictures)  # before loading, which drops the raw mode
        file.seek(place)
        load_whole(image, file)
        ImageOps.exif_transpose(image, in_place=True)  # without a copy
        return image, replace(header, size=(image.height, image.width), warnings=_texts(caught))


def convert_picture(image: Image.Image, mode: str, path: Path, what: str = "picture") -> Image.Image:
    """Convert a loaded picture to another of Pillow's modes; an `InputError` if Pillow cannot."""
    with _named(path, what):
        return image.convert(mode)


def load_sixteen_bit(
    path: Path, image: Image.Image, what: str = "picture"
) -> Callable[[slice], UInt16[ndarray, "n w 4"]]:
    """Return a function that reads rows of a loaded picture as RGBA with 16 bits; InputError if they are not exact."""
    decoded = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    stored = np.zeros((0, 0), np.uint16) if decoded is None else decoded
    key = image.info.get("transparency")

    def rows(band: slice) -> UInt16[ndarray, "n w 4"]:
        channels = stored[band].reshape(*stored[band].shape[:2], -1)
        deep = np.full((*channels.shape[:2], 4), 65535, np.uint16)
        count = channels.shape[2]
        deep[..., :3] = channels[..., 2::-1] if count >= 3 else channels[..., :1]
        if count in (2, 4):
            deep[..., 3] = channels[..., -1]
        elif isinstance(key, tuple):
            deep[(deep[..., :3] == key).all(-1), 3] = 0
        return deep

    def is_same(top: int) -> bool:
        part = image.crop((0, top, image.width, min(top + _ROWS, image.height)))
        upper = np.asarray(convert_picture(part, "RGBA", path, what))[..., :3]
        return bool((rows(slice(top, top + _ROWS))[..., :3] >> 8 == upper).all())

    fits = stored.dtype == np.uint16 and stored.shape[:2] == image.size[::-1]
    if fits and all(is_same(top) for top in range(0, image.height, _ROWS)):
        return rows
    cause = f"The {what} {path} has 16 bits per channel, which cannot be read exactly."
    raise InputError(cause, "Save it with 8 bits per channel.")


@contextmanager
def _named(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except (InputError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise _unknown(path, what) from None
    except Image.DecompressionBombError as problem:
        raise _too_large(path, what) from problem
    except Exception as problem:  # the plugins raise almost any class for damaged files
        text = " ".join(str(problem).split()).rstrip(".") or type(problem).__name__
        raise InputError(
            f"The {what} {path} cannot be read as a picture: {text}.", "Replace it: it is damaged or incomplete."
        ) from problem


@contextmanager
def _opened(path: Path, what: str) -> Iterator[tuple[Any, BinaryIO, int, list[warnings.WarningMessage]]]:
    check_regular_file(path, what)
    with _named(path, what), _caught_warnings() as caught, path.open("rb") as file:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"The {what} {path} is larger than {MAX_BYTES >> 20} MiB.", "Give a smaller file.")
        # A file, not a path: with a path, Pillow maps the pixels of a rotated TIFF in a wrong shape.
        with Image.open(file, formats=FORMATS) as image:
            pictures = _seek_primary(image, path, what)
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise _too_large(path, what, f" ({width}x{height})")
            yield image, file, pictures, caught


@contextmanager
def _caught_warnings() -> Iterator[list[warnings.WarningMessage]]:
    """Catch Pillow's warnings. Our own, which other threads may raise meanwhile, are raised again at the end."""
    with _lock:
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                yield caught
        finally:
            for warning in caught:
                if issubclass(warning.category, PropagateWarning):
                    warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def _header(image: Any, file: BinaryIO, pictures: int) -> PictureHeader:
    """Return the header, with the size as stored, of a picture that is not decoded yet."""
    parameters = image.tile[0][3] if image.tile else ""
    raw_mode = parameters if isinstance(parameters, str) else str((*(parameters or ()), "")[0])
    transparent = image.mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in image.info
    highest = int(image.tile[0][3][1]) if image.format == "PPM" and image.tile[0][0].startswith("ppm") else 0
    bits = avif_bits(file) if image.format == "AVIF" else max(8, highest.bit_length() if image.mode == "RGB" else 8)
    size, lossy = image.size[::-1], lossy_compression(image, file)
    return PictureHeader(size, image.format, image.mode, raw_mode, bits, highest, lossy, transparent, pictures)


def _texts(caught: list[warnings.WarningMessage]) -> tuple[str, ...]:
    foreign = [str(warning.message) for warning in caught if not issubclass(warning.category, PropagateWarning)]
    return tuple(dict.fromkeys(" ".join(text.split()).rstrip(".") for text in foreign))


def _seek_primary(image: Any, path: Path, what: str) -> int:
    """Seek the primary picture of a file and return the number of pictures; refuse animations and stacks of pages."""
    if image.format == "MPO":  # its standard puts the primary picture first
        return int(image.n_frames)
    if image.format == "TIFF":
        return _seek_primary_page(image, path, what)
    if getattr(image, "is_animated", False):
        raise _several(path, what, "an animation of several pictures")
    return 1


def _seek_primary_page(image: Any, path: Path, what: str) -> int:
    """Seek the one page of a TIFF that is neither a thumbnail nor a transparency mask."""
    pages: list[tuple[int, int]] = []
    full: list[int] = []
    for number in range(_MAX_PAGES + 1):
        try:
            image.seek(number)
        except EOFError:
            break
        pages.append(image.size)
        kind = int(image.tag_v2.get(_NEW_SUBFILE_TYPE, 0))
        if not kind & (_REDUCED | _TRANSPARENCY_MASK):
            full.append(number)
    if not full:
        image.seek(0)
        if len(pages) > 1 or _SUB_IFDS in image.tag_v2:
            raise InputError(
                f"The {what} {path} has only a preview outside of what Pillow reads, as a camera's raw file has.",
                "Develop it: save the picture as PNG or as plain TIFF.",
            )
        return 1
    width, height = pages[primary := max(full, key=lambda number: pages[number][0] * pages[number][1])]
    if any(pages[n][0] >= width or pages[n][1] >= height for n in full if n != primary):
        raise _several(path, what, "several pages, and none is the primary one")
    image.seek(primary)
    return len(pages)


def _several(path: Path, what: str, which: str) -> InputError:
    return InputError(f"The {what} {path} holds {which}.", "Save the intended picture as a separate file.")


def _too_large(path: Path, what: str, size: str = "") -> InputError:
    return InputError(
        f"The {what} {path} is far larger than any video frame{size}: over {MAX_PIXELS / 1e6:.0f} million pixels.",
        "Give a smaller picture.",
    )


def _unknown(path: Path, what: str) -> InputError:
    with path.open("rb") as file:
        start = file.read(12)
    if not start:
        return InputError(f"The {what} {path} is not a picture: it is empty (0 bytes).", "Replace it.")
    if start[4:8] == b"ftyp" and start[8:12] in _HEIC_BRANDS:
        return InputError(f"The {what} {path} is a HEIC picture, which cannot be read.", "Save it as PNG or JPEG.")
    return InputError(
        f"The {what} {path} is not a picture that can be read.", f"Save it as PNG; known are {', '.join(FORMATS)}."
    )
