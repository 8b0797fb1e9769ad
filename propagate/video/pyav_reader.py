"""The default reader: PyAV, FFmpeg in Python."""

from __future__ import annotations

import warnings
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from propagate.errors import InputError, PropagateWarning
from propagate.types import Frame, FrameInfo
from propagate.video.decoding import decoded_frames, open_container, upright_pixels, video_streams
from propagate.video.packets import LONGEST_REORDERING
from propagate.video.scan import Scan


class VideoEndsEarlyWarning(PropagateWarning):
    """A video contained fewer intact frames than it promises: it is cut off or damaged."""


class VideoTimesWarning(PropagateWarning):
    """The presentation times of a video turned out to be wrong while reading; its frames are counted."""


class PyAVReader:
    """The chosen frames of a video file, decoded one by one from its start."""

    def __init__(self, scan: Scan, chosen: range, *, strict: bool = False) -> None:
        self._scan, self._chosen, self._strict = scan, chosen, strict
        self.info = info_of(scan, chosen, "pyav")

    def __iter__(self) -> Iterator[Frame]:
        scan, chosen = self._scan, self._chosen
        last = chosen[-1]
        # A selection up to the end includes frames that the header promises.
        expected = scan.promised if chosen.stop >= scan.count else last + 1
        decoded, damaged, yielded, numbering = 0, 0, 0, _Numbering(scan)
        with open_container(scan.path) as container:
            for index, picture in numbering(decoded_frames(container, video_streams(container)[0])):
                if index > last and expected <= last + 1:
                    break
                decoded += 1
                damaged += bool(picture.is_corrupt)
                if index in chosen:
                    yielded += 1
                    pixels = upright_pixels(picture, scan.orientation)
                    if pixels.shape[:2] != (scan.height, scan.width):
                        raise InputError(
                            f"{scan.path}: frame {index} is {pixels.shape[1]}x{pixels.shape[0]}, "
                            f"the frames before it are {scan.width}x{scan.height}.",
                            "Cut the video where its size changes, or scale it to one size.",
                        )
                    time_s = scan.times[index] if index < scan.count else index / scan.rate
                    yield Frame(pixels, index, time_s)
                if index + 1 >= expected:
                    break
        if not numbering.times_rise and scan.pts is not None:
            message = (
                f"The presentation times in {scan.path} are out of order. Frames are counted in the order of display "
                "and get the times in ascending order."
            )
            warnings.warn(message, VideoTimesWarning, stacklevel=2)
        self._report(decoded, damaged, expected, yielded)

    def _report(self, decoded: int, damaged: int, expected: int, yielded: int) -> None:
        parts = []
        if decoded < expected:
            parts.append(f"{decoded} of the {expected} frames promised could be decoded")
        elif yielded < len(self._chosen):
            parts.append(f"{yielded} of the {len(self._chosen)} frames chosen could be decoded")
        if damaged:
            parts.append(f"{damaged} of the {decoded} frames decoded are damaged")
        if not parts:
            return
        message = f"{self._scan.path} ends early or is damaged: {' and '.join(parts)}."
        if self._strict:
            raise InputError(message, "Copy it again from its source, or read what is there without strict.")
        warnings.warn(message, VideoEndsEarlyWarning, stacklevel=3)


class _Numbering:
    """The numbers of decoded pictures. Frames lost to damage leave a gap, not a shift.

    A gap in the presentation times counts if as many pictures as a decoder reorders follow without filling it. If one
    of them fills it, the times are wrong: `times_rise` becomes false, and pictures are counted from there on.
    """

    def __init__(self, scan: Scan) -> None:
        self._scan = scan
        self.times_rise = True

    def __call__(self, pictures: Iterable[Any]) -> Iterator[tuple[int, Any]]:
        """Yield the number, from 0 and rising, and the picture, for all `av.VideoFrame`s from the start of a video."""
        source, waiting, following = iter(pictures), deque[Any](), 0
        while (picture := waiting.popleft() if waiting else next(source, None)) is not None:
            index = self._place(picture, following)
            if index > following and not self._scan.in_packet_order:
                while len(waiting) < LONGEST_REORDERING and (another := next(source, None)) is not None:
                    waiting.append(another)
                if any(self._place(later, index) < index for later in waiting):
                    self.times_rise, index = False, following
            if index < following:
                self.times_rise, index = False, following
            yield index, picture
            following = index + 1

    def _place(self, picture: Any, default: int) -> int:
        scan = self._scan
        if scan.pts is not None and self.times_rise and picture.pts is not None:
            index = bisect_left(scan.pts, picture.pts)
            return index if index < scan.count else default
        if scan.in_packet_order and picture.opaque is not None:
            return int(picture.opaque) - scan.undecodable_start
        return default


def info_of(scan: Scan, chosen: range, reader: str, notes: tuple[str, ...] = ()) -> FrameInfo:
    """Return the `FrameInfo` of the chosen frames of a scanned file."""
    notes = (*notes, *scan.notes())
    return FrameInfo(scan.width, scan.height, len(chosen), scan.rate, str(scan.path), reader, notes, indices=chosen)
