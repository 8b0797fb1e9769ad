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
from propagate.video.listing import list_pictures
from propagate.video.selection import select

# A folder has no clock. 25 per second is what most data sets of pictures were filmed at.
_RATE = 25.0


def read_header(path: Path) -> tuple[tuple[int, int], tuple[str, ...]]:
    """(width, height) of a picture as it is shown, and what its pixels have to be converted from.

    Raises:
        InputError: the file is not a picture, holds several, or has 32 bits per channel.
    """
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
    """The RGB pixels of a picture, turned as its EXIF orientation says.

    Grey is repeated in the three channels, alpha is dropped, of 16 bits the upper 8 are kept.

    Raises:
        InputError: the file is not a picture, or not a whole one, or has negative values.
    """
    image, header = load_picture(path)
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0:
            raise InputError(f"{path} has negative values.", "Save it with 8 or 16 bits without a sign.")
        grey = (values >> 8).astype(np.uint8)
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
        self,
        source: Path,
        *,
        from_frame: int = 0,
        to_frame: int | None = None,
        stride: int = 1,
        leave_out: Sequence[Path] = (),
    ) -> None:
        if source.is_dir():
            listing = list_pictures(source, leave_out)
            pictures, notes = listing.pictures, list(listing.notes)
        else:
            pictures, notes = (source,), ["A single picture is read as a video of one frame."]
        self._chosen = select(len(pictures), source, from_frame, to_frame, stride)
        self._pictures = pictures
        self._size, converted, said = self._check_headers()
        notes += [f"{n} {kind} pictures are converted to 8-bit RGB." for kind, n in sorted(converted.items())]
        notes += [f"{names[0]}{f' and {len(names) - 1} more' * (len(names) > 1)}: {t}" for t, names in said.items()]
        if "16-bit" in converted:
            notes += self._depth_notes()
        if len(pictures) > 1:
            notes.append(f"Pictures have no clock: times are counted at {_RATE:g} frames per second.")
        width, height = self._size
        names = tuple(pictures[index].stem for index in self._chosen)
        count, chosen = len(self._chosen), self._chosen
        self.info = FrameInfo(width, height, count, None, str(source), "folder", tuple(notes), names, chosen)

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

    def _check_headers(self) -> tuple[tuple[int, int], dict[str, int], dict[str, list[str]]]:
        """The size, how many pictures of each kind there are, and what is said of which."""
        size: tuple[int, int] | None = None
        converted: dict[str, int] = defaultdict(int)
        said: dict[str, list[str]] = defaultdict(list)
        for index in self._chosen:
            path = self._pictures[index]
            header = inspect_picture(path)
            height, width = header.size
            size = size or (width, height)
            self._check_size(index, (width, height), size)
            for kind in _kinds(header, path):
                converted[kind] += 1
            for text in header.notes:
                said[text].append(path.name)
        assert size is not None  # a selection is never empty
        return size, converted, said

    def _depth_notes(self) -> list[str]:
        """A note where 16 bits hold fewer, as of cameras with 12: the upper 8 that are kept are nearly black."""
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

    def _check_size(self, index: int, found: tuple[int, int], expected: tuple[int, int]) -> None:
        if found != expected:
            raise InputError(
                f"{self._pictures[index]} (frame {index}) is {found[0]}x{found[1]}, "
                f"the pictures before it are {expected[0]}x{expected[1]}.",
                "All pictures of a folder need one size: resize it or take it out.",
            )
