"""decord, on request, for the files that it reads exactly.

decord decodes ahead without bound, so a `seek(0)` after each chunk of frames stops it. After a seek it repeats or skips
frames in AVI, MPEG-TS, MPEG-PS, MPEG-4 part 2 and open GOPs; it silently scales pictures whose size changes, fails on
some HEVC, and may return four channels for pictures narrower than 97 pixels (dmlc/decord issues 93 and 336).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from propagate.types import Frame
from propagate.video.decoding import decoded_frames, has_utf8_name, open_container, upright_pixels, video_streams
from propagate.video.pyav_reader import PyAVReader, info_of
from propagate.video.scan import Scan

_CHUNK_BYTES = 64 * 2**20


def import_decord() -> Any:
    """Return the module `decord`, from the distribution decord2; None where it is not installed or does not load."""
    try:
        import decord
    except (ImportError, OSError, RuntimeError):
        return None
    decord.logging.set_level(decord.logging.QUIET)  # its FFmpeg writes to stderr, which belongs to the caller
    return decord


def decord_obstacle(scan: Scan) -> str | None:
    """Return why decord does not read this file exactly, as the end of a sentence; None where it does.

    Decodes all keyframes: they must have one size, and decord must return the pixels of the first and the last one.
    """
    requirements = {
        "its name is not UTF-8": has_utf8_name(scan.path),
        f"its container is {scan.container}": bool({"mp4", "matroska"} & set(scan.container.split(","))),
        f"its codec is {scan.codec}": scan.codec == "h264",
        "it has an edit list": not scan.edited,
        "its groups of pictures are open": not scan.open_gop,
        "it has several video streams": scan.streams == 1,
        "its presentation times do not rise": scan.pts is not None,
        "its frames are narrower than 97 pixels": scan.width > 96,
        "it starts with frames that cannot be decoded": scan.undecodable_start == 0,
        "it ends early": scan.promised == scan.count,
    }
    if obstacle := next((text for text, fulfilled in requirements.items() if not fulfilled), None):
        return obstacle
    assert scan.pts is not None
    numbers = {scan.pts[n]: n for n in (0, *scan.keyframes[-1:])}
    pixels, sizes = dict.fromkeys(numbers.values(), np.empty(0)), set()
    with open_container(scan.path) as container:
        stream = video_streams(container)[0]
        stream.codec_context.skip_frame = "NONKEY"
        for picture in decoded_frames(container, stream):
            sizes.add((picture.width, picture.height))
            if picture.pts in numbers:
                pixels[numbers[picture.pts]] = upright_pixels(picture, scan.orientation)
    return "its frame size changes" if len(sizes) > 1 else _disagreement(scan, pixels)


def _disagreement(scan: Scan, pixels: dict[int, np.ndarray]) -> str | None:
    """Return how decord differs from the packet scan and from these frames; None where it does not."""
    decord = import_decord()
    try:
        video = decord.VideoReader(str(scan.path.absolute()))
        if len(video) != scan.count:
            return f"decord counts {len(video)} frames and the packets are {scan.count}"
        for index, expected in pixels.items():
            if not np.array_equal(video.get_batch([index]).asnumpy()[0], expected):
                return f"decord and PyAV disagree on frame {index}"
            video.seek(0)
    except (decord.DECORDError, RuntimeError, AssertionError):
        return "decord fails on it"
    return None


class DecordReader:
    """The chosen frames, decoded by decord in chunks of at most 64 MiB; where decord fails, PyAV takes over."""

    def __init__(self, scan: Scan, chosen: range, *, strict: bool = False) -> None:
        self._scan, self._chosen, self._strict = scan, chosen, strict
        self.info = info_of(scan, chosen, "decord", ("decord does not report damaged frames; --reader pyav does.",))
        self._chunk = max(1, min(64, _CHUNK_BYTES // (3 * scan.width * scan.height)))

    def __iter__(self) -> Iterator[Frame]:
        decord = import_decord()
        video = decord.VideoReader(str(self._scan.path.absolute()))
        for start in range(0, len(self._chosen), self._chunk):
            numbers = self._chosen[start : start + self._chunk]
            try:
                batch = video.get_batch(list(numbers)).asnumpy()
                video.seek(0)
            except (decord.DECORDError, RuntimeError):
                yield from PyAVReader(self._scan, self._chosen[start:], strict=self._strict)
                return
            for pixels, index in zip(batch, numbers, strict=True):
                # A copy, so that a caller who keeps one frame does not keep its whole chunk in memory.
                yield Frame(pixels.copy(), index, self._scan.times[index])
