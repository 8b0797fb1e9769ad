"""The reader that reads everything: PyAV, FFmpeg in Python."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

from propagate.errors import InputError, PropagateWarning
from propagate.types import Frame, FrameInfo
from propagate.video.decoding import decoded_frames, open_container, upright_pixels, video_streams
from propagate.video.numbering import Numbering
from propagate.video.scan import Scan


class VideoEndsEarlyWarning(PropagateWarning):
    """A video gave fewer whole frames than it promises: it is cut off, or damaged somewhere."""


class VideoTimesWarning(PropagateWarning):
    """The presentation times of a video turned out to be wrong while it was read; its frames are counted."""


class PyAVReader:
    """The chosen frames of a video file, decoded one by one from its start.

    Attributes:
        info: what is known before reading; `count` is the number of chosen frames.
    """

    def __init__(self, scan: Scan, chosen: range, *, strict: bool = False) -> None:
        self._scan, self._chosen, self._strict = scan, chosen, strict
        self.info = info_of(scan, chosen, "pyav")

    def __iter__(self) -> Iterator[Frame]:
        """The frames in order of presentation.

        Raises:
            InputError: the frame size changes, or, if strict, the file ends early or is damaged.
        """
        scan, chosen = self._scan, self._chosen
        last = chosen[-1]
        # Whoever asks for all there is asks for all that is promised.
        wanted = scan.promised if chosen.stop >= scan.count else last + 1
        decoded, damaged, given, numbering = 0, 0, 0, Numbering(scan)
        with open_container(scan.path) as container:
            for index, picture in numbering(decoded_frames(container, video_streams(container)[0])):
                if index > last and wanted <= last + 1:
                    break
                decoded += 1
                damaged += bool(picture.is_corrupt)
                if index in chosen:
                    given += 1
                    pixels = upright_pixels(picture, scan.orientation)
                    self._check_size(index, pixels.shape[:2])
                    time_s = scan.times[index] if index < scan.count else index / scan.rate
                    yield Frame(pixels, index, time_s)
                if index + 1 >= wanted:
                    break
        if not numbering.times_rise and scan.pts is not None:
            message = (
                f"The presentation times in {scan.path} are out of order. Frames are counted in the order of display, "
                "and the times are given to them in ascending order."
            )
            warnings.warn(message, VideoTimesWarning, stacklevel=2)
        self._report(decoded, damaged, wanted, given)

    def _check_size(self, index: int, size: tuple[int, int]) -> None:
        height, width = size
        if (width, height) != (self._scan.width, self._scan.height):
            raise InputError(
                f"{self._scan.path}: frame {index} is {width}x{height}, "
                f"the frames before it are {self._scan.width}x{self._scan.height}.",
                "Cut the video where its size changes, or scale it to one size.",
            )

    def _report(self, decoded: int, damaged: int, wanted: int, given: int) -> None:
        if decoded >= wanted and not damaged and given >= len(self._chosen):
            return
        parts = []
        if decoded < wanted:
            parts.append(f"{decoded} of the {wanted} frames promised could be decoded")
        elif given < len(self._chosen):
            parts.append(f"{given} of the {len(self._chosen)} frames chosen could be decoded")
        if damaged:
            parts.append(f"{damaged} of the {decoded} frames decoded are damaged")
        message = f"{self._scan.path} ends early or is damaged: {' and '.join(parts)}."
        if self._strict:
            raise InputError(message, "Copy it again from its source, or read what is there without strict.")
        warnings.warn(message, VideoEndsEarlyWarning, stacklevel=3)


def info_of(scan: Scan, chosen: range, reader: str, notes: tuple[str, ...] = ()) -> FrameInfo:
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
