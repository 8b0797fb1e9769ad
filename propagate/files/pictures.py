"""Pictures of other people, opened in one place: known formats alone, and whatever Pillow raises as an error of ours.

Pillow guesses the format from the content, whatever the name says, and has plugins that start other programs (EPS runs
Ghostscript). It raises a dozen kinds of exceptions for damaged files, and takes the first of several pictures silently.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image, ImageOps, UnidentifiedImageError

from propagate.errors import InputError, PropagateWarning
from propagate.files.documents import check_regular_file
from propagate.files.picture_containers import avif_bits, is_turned_late, lossy_compression
from propagate.files.whole_pictures import load_whole

FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF", "PPM", "AVIF")
MAX_PIXELS = 2**26  # 8192 x 8192, twice 8K video
MAX_BYTES = 2**30
_MAX_PAGES = 32
_REDUCED, _TRANSPARENCY_MASK = 1, 4  # bits of TIFF's NewSubfileType
_NEW_SUBFILE_TYPE, _SUB_IFDS, _ORIENTATION = 254, 330, 274
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")

# `warnings.catch_warnings` changes the state of the whole process.
_lock = threading.RLock()


@dataclass(frozen=True)
class PictureHeader:
    """A picture as its file describes it.

    Attributes:
        size: (height, width) in pixels, upright.
        format: Pillow's name of the file format: "PNG", "JPEG", "MPO", ...
        mode: Pillow's mode of the decoded pixels: "P", "L", "RGB", "I;16", ...
        raw_mode: Pillow's name of how pixels are stored, such as "RGB;16B" or "L;4"; empty where it names none.
        bits: per channel, as far as Pillow would not tell: 8, or more of an AVIF or PPM, of which it keeps the upper 8.
        highest: value that stands for white, where Pillow spreads others than 255 and 65535 (PPM); 0 elsewhere.
        lossy: name of the compression that may have changed colors; empty for exact ones.
        transparent: some pixels may be transparent: an alpha channel, a transparent color or palette entry.
        pictures: number of pictures in the file; beyond 1, this one is the primary one (JPEG with a preview, TIFF with
            a thumbnail).
        warnings: what Pillow warned of, such as damaged metadata.
    """

    size: tuple[int, int]
    format: str
    mode: str
    raw_mode: str
    bits: int
    highest: int
    lossy: str
    transparent: bool
    pictures: int
    warnings: tuple[str, ...]

    @property
    def sixteen_bit(self) -> bool:
        """16 bits per channel; where `mode` is RGB or RGBA, Pillow drops the lower 8 of them."""
        return self.mode.startswith("I;16") or ";16" in self.raw_mode or (self.mode == "I" and self.highest > 255)

    @property
    def notes(self) -> tuple[str, ...]:
        """What to tell the user, as sentences without the file's name."""
        several = f"It holds {self.pictures} pictures: the primary one is read, not the preview."
        return (*((several,) if self.pictures > 1 else ()), *(f"Reading it: {text}." for text in self.warnings))


def inspect_picture(path: Path, what: str = "picture") -> PictureHeader:
    """Return what a picture's file says before its pixels are decoded.

    Args:
        path: the file.
        what: what it should be, for the message ("mask").

    Raises:
        InputError: missing, no regular file, no picture of a known format, damaged, over `MAX_PIXELS` pixels, or
            several pictures of which none is the primary one.
    """
    with _opened(path, what) as (image, file, pictures, caught):
        if image.format == "PNG" and is_turned_late(file):
            return load_picture(path, what)[1]
        header = _header(image, file, pictures, caught)
        # A PNG's own getexif would decode all of its pixels; a TIFF's size is already that of the upright picture.
        if image.format != "TIFF" and Image.Image.getexif(image).get(_ORIENTATION, 1) in (5, 6, 7, 8):
            header = replace(header, size=header.size[::-1])
        return replace(header, warnings=_texts(caught))


def is_tiled_still(path: Path) -> bool:
    """Whether a file is an AVIF or HEIC still, of which a video decoder may take one tile for the picture."""
    with path.open("rb") as file:
        start = file.read(12)
    return start[4:8] == b"ftyp" and start[8:12] in (b"avif", *_HEIC_BRANDS[:4], b"mif1")


def load_picture(path: Path, what: str = "picture") -> tuple[Image.Image, PictureHeader]:
    """Return the decoded picture, turned upright as its EXIF orientation says, and its header.

    Args:
        path, what: see `inspect_picture`.

    Raises:
        InputError: as `inspect_picture`, and where the pixels are damaged or end early.
    """
    with _opened(path, what) as (image, file, pictures, caught):
        place = file.tell()
        header = _header(image, file, pictures, caught)  # before loading, which forgets how pixels were stored
        file.seek(place)
        load_whole(image, file)
        ImageOps.exif_transpose(image, in_place=True)  # without a copy
        return image, replace(header, size=(image.height, image.width), warnings=_texts(caught))


def convert_picture(image: Image.Image, mode: str, path: Path, what: str = "picture") -> Image.Image:
    """Return a loaded picture in another of Pillow's modes, "RGB" for example.

    Raises:
        InputError: there is no way from its mode to that one.
    """
    with _named(path, what):
        return image.convert(mode)


@contextmanager
def _named(path: Path, what: str) -> Iterator[None]:
    """Turn whatever Pillow raises within into an error of ours that names the file."""
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
            f"The {what} {path} cannot be read as a picture: {text}.", "Replace it: it is damaged or not whole."
        ) from problem


@contextmanager
def _opened(path: Path, what: str) -> Iterator[tuple[Any, BinaryIO, int, list[warnings.WarningMessage]]]:
    """Open a file and go to its primary picture."""
    check_regular_file(path, what)
    with _named(path, what), _caught_warnings() as caught, path.open("rb") as file:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"The {what} {path} is larger than {MAX_BYTES >> 20} MiB.", "Give a smaller file.")
        # A file, not a path: of a path, Pillow maps the pixels of a TIFF that lies on its side in a wrong shape.
        with Image.open(file, formats=FORMATS) as image:
            pictures = _seek_primary(image, path, what)
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise _too_large(path, what, f" ({width}x{height})")
            yield image, file, pictures, caught


@contextmanager
def _caught_warnings() -> Iterator[list[warnings.WarningMessage]]:
    """Catch what Pillow warns of. Our own warnings, which other threads give meanwhile, are given again at the end."""
    with _lock:
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                yield caught
        finally:
            for warning in caught:
                if issubclass(warning.category, PropagateWarning):
                    warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def _header(image: Any, file: BinaryIO, pictures: int, caught: list[warnings.WarningMessage]) -> PictureHeader:
    """The header of a picture that is not decoded yet; its size is that of the pixels as they are stored."""
    parameters = image.tile[0][3] if image.tile else ""
    raw_mode = parameters if isinstance(parameters, str) else str((*(parameters or ()), "")[0])
    transparent = image.mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in image.info
    highest = int(image.tile[0][3][1]) if image.format == "PPM" and image.tile[0][0].startswith("ppm") else 0
    bits = avif_bits(file) if image.format == "AVIF" else max(8, highest.bit_length() if image.mode == "RGB" else 8)
    lossy = lossy_compression(image, file)
    return PictureHeader(
        image.size[::-1],
        image.format,
        image.mode,
        raw_mode,
        bits,
        highest,
        lossy,
        transparent,
        pictures,
        _texts(caught),
    )


def _texts(caught: list[warnings.WarningMessage]) -> tuple[str, ...]:
    """The warnings on one line each, without repetition."""
    foreign = [str(warning.message) for warning in caught if not issubclass(warning.category, PropagateWarning)]
    return tuple(dict.fromkeys(" ".join(text.split()).rstrip(".") for text in foreign))


def _seek_primary(image: Any, path: Path, what: str) -> int:
    """Go to the primary picture of a file and return how many there are.

    Raises:
        InputError: none is the primary one: an animation, a stack of pages.
    """
    if image.format == "MPO":  # its standard puts the primary picture first
        return int(image.n_frames)
    if image.format == "TIFF":
        return _seek_primary_page(image, path, what)
    if getattr(image, "is_animated", False):
        raise _several(path, what, "an animation of several pictures")
    return 1


def _seek_primary_page(image: Any, path: Path, what: str) -> int:
    """Go to the one page of a TIFF that is no thumbnail and no transparency mask."""
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
    return InputError(f"The {what} {path} holds {which}.", "Save the picture that is meant as a file of its own.")


def _too_large(path: Path, what: str, size: str = "") -> InputError:
    return InputError(
        f"The {what} {path} is far larger than any video frame{size}: over {MAX_PIXELS / 1e6:.0f} million pixels.",
        "Give a smaller picture.",
    )


def _unknown(path: Path, what: str) -> InputError:
    """The error for a file that is no picture of a known format."""
    with path.open("rb") as file:
        start = file.read(12)
    if not start:
        return InputError(f"The {what} {path} is not a picture: it is empty (0 bytes).", "Replace it.")
    if start[4:8] == b"ftyp" and start[8:12] in _HEIC_BRANDS:
        return InputError(f"The {what} {path} is a HEIC picture, which cannot be read.", "Save it as PNG or JPEG.")
    return InputError(
        f"The {what} {path} is not a picture that can be read.", f"Save it as PNG; known are {', '.join(FORMATS)}."
    )
