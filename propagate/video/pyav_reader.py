"""The reader that reads everything: PyAV, FFmpeg in Python."""

from __future__ import annotations

import warnings
from bisect import bisect_left
from collections.abc import Iterator

from propagate.errors import InputError
from propagate.types import Frame, FrameInfo
from propagate.video.decoding import decoded_frames, open_container, upright_pixels, video_streams
from propagate.video.scan import Scan


class VideoEndsEarlyWarning(UserWarning):
    """A video gave fewer whole frames than it promises: it is cut off, or damaged somewhere."""


class PyAVReader:
    """The chosen frames of a video file, decoded one by one from its start.

    Attributes:
        info: what is known before reading; `count` is the number of chosen frames.
    """

    def __init__(self, scan: Scan, chosen: range, *, strict: bool = False, notes: tuple[str, ...] = ()) -> None:
        self._scan, self._chosen, self._strict = scan, chosen, strict
        self.info = info_of(scan, chosen, "pyav", notes)

    def __iter__(self) -> Iterator[Frame]:
        """The frames in order of presentation.

        Raises:
            InputError: the frame size changes, or, if strict, the file ends early or is damaged.
        """
        scan, chosen = self._scan, self._chosen
        last = chosen[-1]
        # Whoever asks for all there is asks for all that is promised.
        wanted = scan.promised if chosen.stop >= scan.count else last + 1
        index, decoded, damaged = -1, 0, 0
        with open_container(scan.path) as container:
            for picture in decoded_frames(container, video_streams(container)[0]):
                index, time_s = self._place(picture.pts, index)
                if index > last and wanted <= last + 1:
                    break
                decoded += 1
                damaged += bool(picture.is_corrupt)
                if index in chosen:
                    pixels = upright_pixels(picture, scan.orientation)
                    self._check_size(index, pixels.shape[:2])
                    yield Frame(pixels, index, time_s)
                if index + 1 >= wanted:
                    break
        self._report(decoded, damaged, wanted)

    def _place(self, pts: int | None, previous: int) -> tuple[int, float]:
        """Number and time of a decoded frame. Frames lost to damage leave a gap in the numbers, not a shift."""
        scan = self._scan
        if scan.pts is not None and pts is not None:
            index = bisect_left(scan.pts, pts)
            if previous < index < scan.count:
                return index, scan.times[index]
        index = previous + 1
        return index, scan.times[index] if index < scan.count else index / scan.rate

    def _check_size(self, index: int, size: tuple[int, int]) -> None:
        height, width = size
        if (width, height) != (self._scan.width, self._scan.height):
            raise InputError(
                f"{self._scan.path}: frame {index} is {width}x{height}, "
                f"the frames before it are {self._scan.width}x{self._scan.height}.",
                "Cut the video where its size changes, or scale it to one size.",
            )

    def _report(self, decoded: int, damaged: int, wanted: int) -> None:
        if decoded >= wanted and not damaged:
            return
        parts = []
        if decoded < wanted:
            parts.append(f"{decoded} of the {wanted} frames promised could be decoded")
        if damaged:
            parts.append(f"{damaged} of the {decoded} frames decoded are damaged")
        message = f"{self._scan.path} ends early or is damaged: {' and '.join(parts)}."
        if self._strict:
            raise InputError(message, "Copy it again from its source, or read what is there without strict.")
        warnings.warn(message, VideoEndsEarlyWarning, stacklevel=3)


def info_of(scan: Scan, chosen: range, reader: str, notes: tuple[str, ...]) -> FrameInfo:
    """The `FrameInfo` of the chosen frames of a scanned file."""
    return FrameInfo(
        width=scan.width,
        height=scan.height,
        count=len(chosen),
        rate=scan.rate,
        source=str(scan.path),
        reader=reader,
        notes=(*notes, *scan.notes()),
        indices=chosen,
    )
