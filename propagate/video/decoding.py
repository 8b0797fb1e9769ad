"""The steps of every use of FFmpeg: open a file, pick its video, decode, turn a decoded picture upright."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import av
import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from propagate.printable import printable

# Everything FFmpeg reports while it demuxes or decodes; both classes of its errors derive from one of these.
DECODING_ERRORS = (av.error.FFmpegError, OSError, ValueError)


@contextmanager
def open_container(path: Path) -> Iterator[Any]:
    """Open a local file as an `av.container.InputContainer`.

    The path is made absolute because FFmpeg takes a relative `a:b.mp4` for a protocol; the whitelist keeps playlists
    from reaching the network; tags that are not UTF-8 are ignored.
    """
    with ExitStack() as stack:
        source: Any = str(path.absolute())
        if not has_utf8_name(path):  # read through Python, with the name because some formats are known by suffix
            file = stack.enter_context(path.open("rb"))
            source = SimpleNamespace(read=file.read, seek=file.seek, tell=file.tell, name=printable(path.name))
        options = {"protocol_whitelist": "file,crypto,data"}
        yield stack.enter_context(av.open(source, metadata_errors="ignore", options=options))


def has_utf8_name(path: Path) -> bool:
    """Return whether PyAV and decord, which pass paths as UTF-8, can open a file by its name."""
    with suppress(UnicodeEncodeError):
        return bool(str(path.absolute()).encode())
    return False


def video_streams(container: Any) -> list[Any]:
    """Return the video streams that move, so not a song's cover art; the one that players choose comes first."""
    moving = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    best = container.streams.best("video")
    return sorted(moving, key=lambda stream: stream is not best and stream != best)


def codec_name(stream: Any) -> str:
    """Return FFmpeg's name of a stream's codec."""
    context = stream.codec_context
    return "unknown codec" if context is None else str(context.codec.canonical_name)


def is_shown(packet: Any, codec: str) -> bool:
    """Return whether a non-empty packet belongs to a frame that is shown."""
    if packet.is_discard:  # cut off by an edit list
        return False
    if codec == "vp8":  # a reference that is never shown (RFC 6386, 9.1)
        return bool(bytes(packet)[0] & 0x10)
    return codec != "theora" or not bytes(packet)[0] & 0x80  # a header, in joined files


def decoded_frames(container: Any, stream: Any) -> Iterator[Any]:
    """Yield `av.VideoFrame`s in order of presentation, from the container's position on.

    The `opaque` of a frame is the number of its packet among those that are shown, from 0. Packets that do not decode
    are skipped. A container that cannot be read any further ends the stream.
    """
    stream.codec_context.copy_opaque = True
    codec, number = codec_name(stream), 0
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except DECODING_ERRORS:
            packet = None
        if packet is not None and not packet.size:
            continue  # an empty packet would end the decoding
        if packet is not None and is_shown(packet, codec):
            packet.opaque = number
            number += 1
        try:
            frames = stream.decode(packet)
        except DECODING_ERRORS:
            frames = []
        yield from frames
        if packet is None:  # the decoder has just been flushed
            return


class Orientation(NamedTuple):
    """The way from a stored picture to the shown one: first the transpose, then the reversals."""

    transpose: bool = False
    reverse_x: bool = False
    reverse_y: bool = False


def orientation_of(frame: Any) -> Orientation:
    """Return the orientation in the display matrix of an `av.VideoFrame`, rounded to quarter turns as players do.

    The matrix maps a stored position to a shown one, x' = a x + c y and y' = b x + d y (ISO/IEC 14496-12, 6.2.2).
    Call it once per video: PyAV's side data and their frame refer to each other and keep the frame until the garbage
    collector runs.
    """
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return Orientation()
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    return Orientation(True, c < 0, b < 0) if abs(a) < abs(b) else Orientation(False, a < 0, d < 0)


def upright_pixels(frame: Any, orientation: Orientation) -> UInt8[ndarray, "h w 3"]:
    """Return the RGB pixels of an `av.VideoFrame` as shown: alpha is dropped, more than 8 bits are rounded to 8."""
    pixels = frame.to_ndarray(format="rgb24")
    pixels = pixels.transpose(1, 0, 2) if orientation.transpose else pixels
    pixels = pixels[:, ::-1] if orientation.reverse_x else pixels
    pixels = pixels[::-1] if orientation.reverse_y else pixels
    return np.ascontiguousarray(pixels)
