"""A folder of pictures, or a single one, as a video."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from propagate.errors import InputError
from propagate.pictures import convert_picture, inspect_picture, load_picture
from propagate.types import Frame, FrameInfo
from propagate.video.selection import select

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")

# A folder has no clock. 25 per second is what most data sets of pictures were filmed at.
_RATE = 25.0
_SYSTEM_FILES = ("thumbs.db", "desktop.ini")


def natural_key(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sorts frame_2 before frame_10: digits compare as numbers, the rest as text without case."""
    parts = re.split(r"(\d+)", name)
    key = [(1, int(p), "") if p.isdecimal() else (0, 0, p.casefold()) for p in parts]
    return key, name


def find_pictures(folder: Path) -> tuple[list[Path], list[str]]:
    """The pictures of a folder in natural order, and the names of the visible files that are none.

    Raises:
        InputError: no picture at all, or two that claim the same place (00001.jpg and 00001.png).
    """
    visible = [f for f in folder.iterdir() if f.is_file() and not f.name.startswith(".")]
    pictures = sorted((f for f in visible if f.suffix.lower() in SUFFIXES), key=lambda f: natural_key(f.name))
    others = sorted(f.name for f in visible if f not in set(pictures) and f.name.lower() not in _SYSTEM_FILES)
    if not pictures:
        found = f"only {', '.join(others[:3])}" if others else "nothing"
        raise InputError(
            f"{folder} holds no pictures, {found}.", f"Give a video file or a folder of {', '.join(SUFFIXES)}."
        )
    by_stem: dict[str, list[str]] = defaultdict(list)
    for picture in pictures:
        by_stem[picture.stem].append(picture.name)
    for names in by_stem.values():
        if len(names) > 1:
            raise InputError(
                f"{folder} has both {names[0]} and {names[1]}: it is not clear which is the frame.",
                "Keep frames and masks in folders of their own.",
            )
    return pictures, others


def read_header(path: Path) -> tuple[tuple[int, int], tuple[str, ...]]:
    """(width, height) of a picture as it is shown, and what its pixels have to be converted from.

    Raises:
        InputError: the file is not a picture, holds several, or has 32 bits per channel.
    """
    header = inspect_picture(path)
    if header.mode in ("F", "I") and not header.sixteen_bit:
        raise InputError(f"{path} has 32 bits per channel.", "Save it with 8 or 16.")
    height, width = header.size
    kinds = {
        "16-bit": header.sixteen_bit,
        "grayscale": header.mode in ("1", "L", "LA", "I") or header.mode.startswith("I;16"),
        "transparent": header.transparent,
    }
    return (width, height), tuple(kind for kind, found in kinds.items() if found)


def read_picture(path: Path) -> UInt8[ndarray, "h w 3"]:
    """The RGB pixels of a picture, turned as its EXIF orientation says.

    Grey is repeated in the three channels, alpha is dropped, of 16 bits the upper 8 are kept.

    Raises:
        InputError: the file is not a picture, or not a whole one.
    """
    image, header = load_picture(path)
    if image.mode == "I" or image.mode.startswith("I;16"):
        grey = (np.asarray(image).astype(np.int64) >> 8).astype(np.uint8)
        return np.ascontiguousarray(np.repeat(grey[:, :, None], 3, axis=2))
    # By way of RGBA, because a palette with an alpha per color cannot go to RGB directly.
    opaque = convert_picture(image, "RGBA", path) if header.transparent else image
    return np.array(convert_picture(opaque, "RGB", path))


class FolderReader:
    """The chosen pictures of a folder, in natural order of their names; or one picture.

    The headers of all pictures are read at the start, so that a wrong size is known before anything is computed.

    Attributes:
        info: what is known before reading; `count` is the number of chosen frames, `rate` is None.
    """

    def __init__(
        self, source: Path, *, from_frame: int = 0, to_frame: int | None = None, stride: int = 1, note: str = ""
    ) -> None:
        pictures, others = find_pictures(source) if source.is_dir() else ([source], [])
        self._chosen = select(len(pictures), source, from_frame, to_frame, stride)
        self._pictures = pictures
        notes = [note] if note else []
        if others:
            notes.append(f"Left out, being no pictures: {', '.join(others[:3])}{', ...' if len(others) > 3 else ''}.")
        self._size, converted = self._check_headers()
        notes += [f"{n} {kind} pictures are converted to 8-bit RGB." for kind, n in sorted(converted.items())]
        if len(pictures) > 1:
            notes.append(f"Pictures have no clock: times are counted at {_RATE:g} frames per second.")
        width, height = self._size
        names = tuple(pictures[index].stem for index in self._chosen)
        self.info = FrameInfo(
            width, height, len(self._chosen), None, str(source), "folder", tuple(notes), names, self._chosen
        )

    def __iter__(self) -> Iterator[Frame]:
        """The frames in order.

        Raises:
            InputError: a picture that is not whole, or that was exchanged for one of another size.
        """
        for index in self._chosen:
            pixels = read_picture(self._pictures[index])
            height, width, _ = pixels.shape
            self._check_size(index, (width, height), self._size)
            yield Frame(pixels, index, index / _RATE, self._pictures[index].stem)

    def _check_headers(self) -> tuple[tuple[int, int], dict[str, int]]:
        size: tuple[int, int] | None = None
        converted: dict[str, int] = defaultdict(int)
        for index in self._chosen:
            found, kinds = read_header(self._pictures[index])
            size = size or found
            self._check_size(index, found, size)
            for kind in kinds:
                converted[kind] += 1
        assert size is not None  # a selection is never empty
        return size, converted

    def _check_size(self, index: int, found: tuple[int, int], expected: tuple[int, int]) -> None:
        if found != expected:
            raise InputError(
                f"{self._pictures[index]} (frame {index}) is {found[0]}x{found[1]}, "
                f"the pictures before it are {expected[0]}x{expected[1]}.",
                "All pictures of a folder need one size: resize it or take it out.",
            )
