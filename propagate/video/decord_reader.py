"""decord, for the files it reads exactly.

decord decodes ahead without bound while the caller computes: 600 frames in 480p were all in memory after some seconds,
730 MiB. Frames are therefore fetched in chunks, and a `seek(0)` after each stops the decoder. Every chunk makes decord
seek, and that is where it fails: it repeats or skips frames after a seek in AVI, MPEG-TS, MPEG-PS, MPEG-4 part 2 and
open groups of pictures. HEVC fails now and then, because a decoder that is full (EAGAIN) is an error to it. VP9 may
change its size between keyframes, and a picture whose size changes is scaled to the first size without a word. Pictures
narrower than 97 pixels come back with four channels on some machines (dmlc/decord issues 93 and 336). Hence the short
list below and the comparison with PyAV.

A seek also decodes anew from the keyframe before it: PyAV is faster, most so where keyframes are far apart. And of a
frame that FFmpeg patched up because its data are damaged, decord does not tell. So it is taken only where it is asked
for, and a note says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from propagate.types import Frame
from propagate.video.decoding import decoded_frames, has_utf8_name, open_container, upright_pixels, video_streams
from propagate.video.pyav_reader import PyAVReader, info_of
from propagate.video.scan import Scan

_CONTAINERS = frozenset({"mp4", "matroska"})
_CODECS = frozenset({"h264"})
_CHUNK_BYTES = 64 * 2**20


def import_decord() -> Any:
    """The module `decord`, from the distribution decord2, or None where it is not installed or does not load."""
    try:
        import decord
    except (ImportError, OSError, RuntimeError):
        return None
    decord.logging.set_level(decord.logging.QUIET)  # its FFmpeg writes to stderr, which belongs to the caller
    return decord


def decord_obstacle(scan: Scan) -> str | None:
    """Why decord should not read this file, as the end of a sentence; None where it reads it exactly.

    Exactly means: it counts as many frames as the packet scan, all keyframes have one size, and at the first and the
    last keyframe it gives, after a seek, the very pixels that PyAV gives. Keyframes are decoded for this.
    """
    known = {
        "its name is not UTF-8": has_utf8_name(scan.path),
        f"its container is {scan.container}": bool(_CONTAINERS & set(scan.container.split(","))),
        f"its codec is {scan.codec}": scan.codec in _CODECS,
        "it has an edit list": not scan.edited,
        "its groups of pictures are open": not scan.open_gop,
        "it has several video streams": scan.streams == 1,
        "its presentation times do not rise": scan.pts is not None,
        "its frames are narrower than 97 pixels": scan.width > 96,
        "it starts with frames that cannot be decoded": scan.undecodable_start == 0,
        "it ends early": scan.promised == scan.count,
    }
    for obstacle, fits in known.items():
        if not fits:
            return obstacle
    return _size_change(scan) or _disagreement(import_decord(), scan)


def _chunk_length(scan: Scan) -> int:
    return max(1, min(64, _CHUNK_BYTES // (3 * scan.width * scan.height)))


def _size_change(scan: Scan) -> str | None:
    with open_container(scan.path) as container:
        stream = video_streams(container)[0]
        stream.codec_context.skip_frame = "NONKEY"
        sizes = {(picture.width, picture.height) for picture in decoded_frames(container, stream)}
    return "its frame size changes" if len(sizes) > 1 else None


def _disagreement(decord: Any, scan: Scan) -> str | None:
    try:
        video = decord.VideoReader(str(scan.path.absolute()))
        if len(video) != scan.count:
            return f"decord counts {len(video)} frames and the packets are {scan.count}"
        for index in {0, scan.keyframes[-1]} if scan.keyframes else {0}:
            if not np.array_equal(video.get_batch([index]).asnumpy()[0], _pyav_pixels(scan, index)):
                return f"decord and PyAV disagree on frame {index}"
            video.seek(0)
    except (decord.DECORDError, RuntimeError, AssertionError):
        return "decord fails on it"
    return None


def _pyav_pixels(scan: Scan, index: int) -> np.ndarray:
    """Pixels of a keyframe; an empty array where PyAV does not find it."""
    assert scan.pts is not None
    with open_container(scan.path) as container:
        stream = video_streams(container)[0]
        if index:
            container.seek(scan.pts[index], stream=stream)
        for picture in decoded_frames(container, stream):
            if picture.pts is None or picture.pts >= scan.pts[index]:
                return upright_pixels(picture, scan.orientation) if picture.pts == scan.pts[index] else np.empty(0)
    return np.empty(0)


class DecordReader:
    """The chosen frames of a video file, decoded by decord in chunks of at most 64 MiB.

    Where decord fails in the middle, PyAV takes over at that frame; it gives the same pixels.

    Attributes:
        info: what is known before reading; `count` is the number of chosen frames.
    """

    def __init__(self, scan: Scan, chosen: range, *, strict: bool = False) -> None:
        self._scan, self._chosen, self._strict = scan, chosen, strict
        self.info = info_of(scan, chosen, "decord", ("Decord does not tell of damaged frames; --reader pyav does.",))
        self._chunk = _chunk_length(scan)

    def __iter__(self) -> Iterator[Frame]:
        """The frames in order of presentation.

        Raises:
            InputError: PyAV took over, and the frame size changes, or, if strict, the file is damaged.
        """
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
                # A copy: whoever keeps one frame shall not keep its whole chunk in memory.
                yield Frame(pixels.copy(), index, self._scan.times[index])
