"""Clips that carry their frame number as a picture, and the reading of that number.

A picture is a grid of 2 x 4 cells: red top left, blue bottom right, and between them six cells that are the bits of
the number, white for 1 and black for 0. Cells are large enough for lossy coding, and the two colored corners are
wrong in any picture that is rotated, mirrored or has its channels swapped.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

ROWS, COLUMNS = 2, 4
SIZE = (72, 128)
RATE = 25
COUNT = 24


def _cells(height: int, width: int) -> list[tuple[slice, slice]]:
    rows = np.linspace(0, height, ROWS + 1).round().astype(int)
    columns = np.linspace(0, width, COLUMNS + 1).round().astype(int)
    return [
        (slice(int(rows[r]), int(rows[r + 1])), slice(int(columns[c]), int(columns[c + 1])))
        for r in range(ROWS)
        for c in range(COLUMNS)
    ]


def paint(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """The (H, W, 3) uint8 RGB picture of a number from 0 to 63."""
    assert 0 <= number < 64
    picture = np.zeros((*size, 3), np.uint8)
    first, *bits, last = _cells(*size)
    picture[first] = (255, 0, 0)
    picture[last] = (0, 0, 255)
    for place, cell in enumerate(bits):
        picture[cell] = 255 * (number >> place & 1)
    return picture


def read_number(picture: np.ndarray) -> int:
    """The number painted into a picture that stands upright; fails where it is not upright or not RGB."""
    height, width, _ = picture.shape
    means = []
    for rows, columns in _cells(height, width):
        cell = picture[rows, columns]
        h, w = cell.shape[0] // 4, cell.shape[1] // 4
        means.append(cell[h : cell.shape[0] - h, w : cell.shape[1] - w].reshape(-1, 3).mean(0))
    for mean, color in ((means[0], (255, 0, 0)), (means[-1], (0, 0, 255))):
        assert np.abs(mean - color).max() < 60, f"corner is {mean.round()}, not {color}"
    bits = np.array(means[1:-1])
    assert (np.abs(bits - 127.5) > 67).all(), f"cells are neither black nor white: {bits.round()}"
    return int(sum(int(bit.mean() > 127.5) << place for place, bit in enumerate(bits)))


def paint_grey(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """The (H, W) uint8 picture of a number: `paint` without its colored corners."""
    return paint(number, size)[:, :, 1]


def read_grey_number(picture: np.ndarray) -> int:
    """The number of a picture whose corners are black."""
    colored = picture.copy()
    first, *_, last = _cells(*picture.shape[:2])
    colored[first], colored[last] = (255, 0, 0), (0, 0, 255)
    return read_number(colored)


def write_clip(
    path: Path,
    count: int = COUNT,
    *,
    codec: str = "libx264",
    size: tuple[int, int] = SIZE,
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    container: str | None = None,
    ticks: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, RATE),
    rotation: int = 0,
    hflip: bool = False,
    audio: bool = False,
    first_number: int = 0,
) -> Path:
    """Encodes `count` painted frames and returns the path.

    Args:
        ticks: presentation time of each frame in units of `time_base`; 0, 1, 2, ... where not given.
        rotation: what a player has to turn the stored picture by, counter-clockwise; the stored picture is turned the
            other way, so that a reader that applies it sees the numbers upright.
        hflip: the display matrix mirrors the picture after turning it.
        audio: adds a second of silence as AAC.
    """
    _require_encoder(codec)
    ticks = range(count) if ticks is None else ticks
    with av.open(str(path), "w", format=container, options=container_options or {}) as out:
        stream = out.add_stream(codec, rate=RATE, options=options or {})
        stored = np.rot90(paint(0, size), -rotation // 90)
        stream.height, stream.width = stored.shape[:2]
        stream.pix_fmt = pix_fmt
        stream.time_base = stream.codec_context.time_base = time_base
        if rotation or hflip:
            stream.set_display_rotation(rotation, hflip=hflip)
        if audio:
            _write_silence(out)
        for number, tick in zip(range(first_number, first_number + count), ticks, strict=True):
            upright = paint(number, size)
            stored = np.rot90(upright[:, ::-1] if hflip else upright, -rotation // 90)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(stored), "rgb24").reformat(format=pix_fmt)
            frame.pts, frame.time_base = int(tick), time_base
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def _require_encoder(codec: str) -> None:
    try:
        av.codec.Codec(codec, "w")
    except av.codec.codec.UnknownCodecError:
        pytest.skip(f"this build of PyAV has no encoder {codec}")


def _write_silence(out: av.container.OutputContainer) -> None:
    stream = out.add_stream("aac", rate=8000, layout="mono")
    samples = np.zeros((1, 8000), np.float32)
    frame = av.AudioFrame.from_ndarray(samples, "fltp", "mono")
    frame.sample_rate, frame.pts = 8000, 0
    out.mux(stream.encode(frame))
    out.mux(stream.encode())


def write_audio_only(path: Path) -> Path:
    """A second of silence in a file that has no video stream."""
    with av.open(str(path), "w") as out:
        _write_silence(out)
    return path


def remux(source: Path, path: Path, keep: Sequence[int] | None = None, container: str | None = None) -> Path:
    """Copies the packets of a clip, all or those with the numbers in `keep` (decoding order), without coding anew."""
    with av.open(str(source)) as given, av.open(str(path), "w", format=container) as out:
        stream = given.streams.video[0]
        copy = out.add_stream_from_template(stream)
        packets = [packet for packet in given.demux(stream) if packet.size]
        for number, packet in enumerate(packets):
            if keep is None or number in keep:
                packet.stream = copy
                out.mux(packet)
    return path


def joined_sizes(path: Path, sizes: Sequence[tuple[int, int]], count: int) -> Path:
    """One H.264 stream whose frame size changes every `count` frames, in the container of the path's suffix."""
    elementary = b""
    for number, size in enumerate(sizes):
        part = path.with_suffix(f".{number}.h264")
        write_clip(part, count, size=size, options={"bf": "0"}, container="h264", first_number=number * count)
        elementary += part.read_bytes()
    whole = path.with_suffix(".h264")
    whole.write_bytes(elementary)
    if path.suffix != ".h264":
        with av.open(str(whole)) as given, av.open(str(path), "w") as out:
            copy = out.add_stream_from_template(given.streams.video[0])
            copy.time_base = Fraction(1, RATE)
            for tick, packet in enumerate(p for p in given.demux(video=0) if p.size):
                packet.stream, packet.time_base, packet.pts, packet.dts = copy, Fraction(1, RATE), tick, tick
                out.mux(packet)
    return path


def places(path: Path) -> list[tuple[int, int]]:
    """(offset, length) of each packet of a clip in its file."""
    with av.open(str(path)) as given:
        return [(packet.pos, packet.size) for packet in given.demux(video=0) if packet.size]


def cut_after(path: Path, packets: int) -> Path:
    """Cuts the file off after so many packets."""
    offset, length = places(path)[packets - 1]
    path.write_bytes(path.read_bytes()[: offset + length])
    return path


def damage(path: Path, packets: Sequence[int]) -> Path:
    """Overwrites the body of some packets with bytes that are no video."""
    content = bytearray(path.read_bytes())
    for offset, length in [places(path)[number] for number in packets]:
        content[offset : offset + length] = b"\xff" * length
    path.write_bytes(content)
    return path


def set_edit_list(path: Path, first: int, count: int) -> Path:
    """Makes an MP4's one edit (ISO/IEC 14496-12, 8.6.6, version 0) show `count` frames from number `first` on."""
    content = bytearray(path.read_bytes())
    entry = content.index(b"elst") + 4
    version, entries = content[entry], int.from_bytes(content[entry + 4 : entry + 8], "big")
    assert (version, entries) == (0, 1)
    with av.open(str(path)) as given:
        ticks_per_frame = round(1 / (RATE * given.streams.video[0].time_base))
    content[entry + 8 : entry + 12] = (count * 1000 // RATE).to_bytes(4, "big")  # PyAV writes movie time in ms
    content[entry + 12 : entry + 16] = (first * ticks_per_frame).to_bytes(4, "big")
    path.write_bytes(content)
    return path


def set_avi_length(path: Path, count: int) -> Path:
    """Makes the stream header of an AVI claim `count` frames (dwLength, 32 bytes into strh)."""
    content = bytearray(path.read_bytes())
    header = content.index(b"strh") + 8
    content[header + 32 : header + 36] = count.to_bytes(4, "little")
    path.write_bytes(content)
    return path
