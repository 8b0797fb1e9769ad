"""A folder of pictures, or a single one, as a video."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from propagate.errors import InputError
from propagate.files.pictures import PictureHeader, convert_picture, inspect_picture, load_picture
from propagate.types import Frame, FrameInfo

# A folder has no clock. Most data sets of pictures were filmed at this rate.
_RATE = 25.0


def read_header(path: Path) -> tuple[tuple[int, int], tuple[str, ...]]:
    """Return the upright (width, height) and kinds of pixels, such as "16-bit"; InputError for 32 bits."""
    header = inspect_picture(path)
    return (header.size[1], header.size[0]), _kinds(header, path)


def _kinds(header: PictureHeader, path: Path) -> tuple[str, ...]:
    if header.mode in ("F", "I") and not header.sixteen_bit:
        raise InputError(f"{path} has 32 bits per channel.", "Save it with 8 or 16.")
    kinds: dict[str, bool] = {
        "16-bit": header.sixteen_bit,
        "grayscale": header.mode in ("1", "L", "LA", "I") or header.mode.startswith("I;16"),
        "transparent": header.transparent,
    }
    kinds[f"{header.bits}-bit"] = header.bits > 8
    return tuple(kind for kind, found in kinds.items() if found)


def read_picture(path: Path) -> UInt8[ndarray, "h w 3"]:
    """Read the RGB pixels of a picture, upright: gray is repeated, alpha dropped, the upper 8 of 16 bits are kept."""
    image, header = load_picture(path)
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0:
            raise InputError(f"{path} has negative values.", "Save it with 8 or 16 bits without a sign.")
        gray = (values >> 8).astype(np.uint8)
        return np.ascontiguousarray(np.repeat(gray[:, :, None], 3, axis=2))
    # A palette with an alpha per color cannot be converted to RGB directly.
    opaque = convert_picture(image, "RGBA", path) if header.transparent else image
    return np.array(convert_picture(opaque, "RGB", path))


class FolderReader:
    """The chosen pictures of a folder, or one picture. All headers are read first: a wrong size is an early error."""

    def __init__(self, source: Path, pictures: Sequence[Path], chosen: range, notes: Sequence[str]) -> None:
        self._pictures, self._chosen = pictures, chosen
        converted: dict[str, int] = defaultdict(int)
        picture_notes: dict[str, list[str]] = defaultdict(list)
        self._size = inspect_picture(pictures[chosen[0]]).size
        for index in chosen:
            path = pictures[index]
            header = inspect_picture(path)
            self._check_size(index, header.size)
            for kind in _kinds(header, path):
                converted[kind] += 1
            for text in header.notes:
                picture_notes[text].append(path.name)
        notes = [*notes, *(f"{n} {kind} pictures are converted to 8-bit RGB." for kind, n in sorted(converted.items()))]
        for text, files in picture_notes.items():
            notes.append(f"{files[0]}{f' and {len(files) - 1} more' * (len(files) > 1)}: {text}")
        if "16-bit" in converted:
            notes += self._depth_notes()
        if len(pictures) > 1:
            notes.append(f"Pictures have no clock: times are counted at {_RATE:g} frames per second.")
        height, width = self._size
        names = tuple(pictures[index].stem for index in chosen)
        self.info = FrameInfo(width, height, len(chosen), None, str(source), "folder", tuple(notes), names, chosen)

    def __iter__(self) -> Iterator[Frame]:
        for index in self._chosen:
            pixels = read_picture(self._pictures[index])
            self._check_size(index, pixels.shape[:2])
            yield Frame(pixels, index, index / _RATE, self._pictures[index].stem)

    def _depth_notes(self) -> list[str]:
        """Return a note if 16-bit pictures use fewer bits, as cameras with 12 do: their upper 8 are nearly black."""
        both = dict.fromkeys((self._pictures[self._chosen[0]], self._pictures[self._chosen[-1]]))
        ends = [path for path in both if "16-bit" in read_header(path)[1]]
        highest = max((int(read_picture(path).max()) for path in ends), default=255)
        if highest >= 128:
            return []
        bits = highest.bit_length() + 8
        return [
            f"The 16-bit pictures use {bits} of their bits (no value over {2**bits - 1} in "
            f"{' and '.join(path.name for path in ends)}), so that frames are dark. Scale them to 16 bits."
        ]

    def _check_size(self, index: int, size: tuple[int, ...]) -> None:
        if size != self._size:
            raise InputError(
                f"{self._pictures[index]} (frame {index}) is {size[1]}x{size[0]}, "
                f"the pictures before it are {self._size[1]}x{self._size[0]}.",
                "All pictures of a folder need one size: resize it or take it out.",
            )
