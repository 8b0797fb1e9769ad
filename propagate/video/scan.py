"""What a video holds, from its packets: how many frames, when each is shown, where decoding can start.

Packets are read, not decoded; only the first frame is, for its size and format.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

from propagate.video.decoding import (
    DECODING_ERRORS,
    Orientation,
    decoded_frames,
    open_container,
    orientation_of,
    upright_pixels,
    video_streams,
)
from propagate.video.diagnosis import check_file, no_frames, no_video, unreadable

# AVI stores no presentation times; FFmpeg makes them up, out of order where there are B-frames.
_UNTIMED_CONTAINERS = ("avi",)


@dataclass(frozen=True)
class Scan:
    """A video file as its packets describe it.

    Attributes:
        path: the file.
        container, codec: FFmpeg's names.
        width, height: in pixels, after rotation.
        pixel_format: of the stored pictures, FFmpeg's name.
        orientation: how the stored pictures are turned and mirrored to be shown.
        pixel_aspect: width of a stored pixel by its height.
        rate: average frames per second.
        times: presentation time of each frame in seconds, ascending; its length is the number of frames there are.
        pts: the same in units of the stream's time base, None where the file stores none: then times are counted.
        constant: the gaps between frames are all equal, up to the rounding of the container.
        promised: the number of frames the header speaks of, at least len(times).
        keyframes: numbers of the frames decoding can start from.
        undecodable_start: frames before the first one that decodes; they are counted nowhere else.
        edited: an edit list takes frames out or shows them twice.
        open_gop: frames that follow a keyframe in the file are shown before it.
        streams: number of video streams.
    """

    path: Path
    container: str
    codec: str
    width: int
    height: int
    pixel_format: str
    orientation: Orientation
    pixel_aspect: Fraction
    rate: float
    times: tuple[float, ...]
    pts: tuple[int, ...] | None
    constant: bool
    promised: int
    keyframes: tuple[int, ...]
    undecodable_start: int
    edited: bool
    open_gop: bool
    streams: int

    @property
    def count(self) -> int:
        """Number of frames in the file."""
        return len(self.times)

    def notes(self) -> tuple[str, ...]:
        """What the user should know of this file, each a sentence."""
        said = []
        if self.promised > self.count:
            said.append(f"The file promises {self.promised} frames and holds {self.count}.")
        if self.undecodable_start:
            said.append(
                f"The first {self.undecodable_start} frames cannot be decoded: they are damaged or cut off from the "
                "keyframe they need. Counting starts after them."
            )
        if not self.constant:
            said.append(f"The frame rate varies; {self.rate:.3g} per second is the average, each frame's time is true.")
        if self.pixel_aspect != 1:
            said.append(f"Pixels are {self.pixel_aspect} times as wide as high; frames are given as stored.")
        return tuple(said)


@dataclass
class _Packets:
    """What is collected of the shown packets, in decoding order."""

    pts: list[int | None] = field(default_factory=list)
    keys: list[bool] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    discarded: bool = False
    repeated: bool = False
    open_gop: bool = False


def scan(path: Path) -> Scan:
    """Reads all packets of a video file and decodes its first frame.

    Raises:
        InputError: the file is missing, empty, not a video, has no video stream or not one frame that decodes.
    """
    check_file(path)
    try:
        with open_container(path) as container:
            streams = video_streams(container)
            if not streams:
                raise no_video(path, bool(container.streams.audio))
            stream = streams[0]
            packets = _read_packets(container, stream)
            container_name, codec = container.format.name, _codec_name(stream)
            time_base, nominal = stream.time_base, stream.average_rate or stream.guessed_rate
            pixel_aspect = Fraction(stream.sample_aspect_ratio or 1)
            stored = stream.frames
            declared = _declared_count(container, stream, packets, float(nominal or 0))
    except DECODING_ERRORS as error:
        raise unreadable(path, getattr(error, "strerror", None) or str(error)) from None

    first = _first_frame(path)
    if first is None or not packets.pts:
        raise no_frames(path, codec)
    orientation = orientation_of(first)
    height, width, _ = upright_pixels(first, orientation).shape
    pts = _presentation(packets, container_name)
    skipped = 0 if pts is None or first.pts is None else sum(p < first.pts for p in pts)
    pts = None if pts is None else pts[skipped:]
    count = len(packets.pts) if pts is None else len(pts)
    rate, constant = _rate(pts, time_base, float(nominal or 0))
    times = tuple(n / rate for n in range(count)) if pts is None else tuple(float(p * time_base) for p in pts)
    return Scan(
        path=path,
        container=container_name,
        codec=codec,
        width=width,
        height=height,
        pixel_format=first.format.name,
        orientation=orientation,
        pixel_aspect=pixel_aspect,
        rate=rate,
        times=times,
        pts=None if pts is None else tuple(pts),
        constant=constant,
        promised=max(count, declared - skipped),
        keyframes=_keyframes(packets, pts),
        undecodable_start=skipped,
        # MP4 counts stored samples; samples before the edit's keyframe do not even arrive as packets to be discarded.
        edited=packets.discarded or packets.repeated or ("mp4" in container_name and 0 < stored != declared),
        open_gop=packets.open_gop,
        streams=len(streams),
    )


def _read_packets(container: Any, stream: Any) -> _Packets:
    packets, key = _Packets(), None
    places: set[tuple[int, int]] = set()
    demuxed = container.demux(stream)
    while True:
        try:
            packet = next(demuxed, None)
        except DECODING_ERRORS:
            return packets  # a damaged container: what came before the damage counts
        if packet is None:
            return packets
        if not packet.size:
            continue
        if packet.is_discard:
            packets.discarded = True
            continue
        if _codec_name(stream) == "vp8" and not bytes(packet)[0] & 0x10:
            continue  # a reference that is never shown (RFC 6386, 9.1)
        packets.repeated |= packet.pos is not None and (packet.pos, packet.size) in places
        places.add((packet.pos, packet.size))
        if packet.is_keyframe:
            key = packet.pts
        elif None not in (key, packet.pts) and packet.pts < key:
            packets.open_gop = True
        packets.pts.append(packet.pts)
        packets.keys.append(packet.is_keyframe)
        packets.ends.append((packet.pts or 0) + (packet.duration or 0))


def _codec_name(stream: Any) -> str:
    context = stream.codec_context
    return "unknown codec" if context is None else str(context.codec.canonical_name)


def _declared_count(container: Any, stream: Any, packets: _Packets, rate: float) -> int:
    """How many shown frames the header speaks of; 0 where it is silent.

    MP4 lists every sample, AVI states a number. Matroska and FLV state a time at which the last frame ends.
    """
    formats = container.format.name.split(",")
    if "mp4" in formats and stream.frames:
        return sum(not entry.is_discard for entry in stream.index_entries)
    if "avi" in formats:
        return int(stream.frames)
    if not {"matroska", "flv"} & set(formats) or not packets.ends:
        return 0
    end = _seconds(stream.metadata.get("DURATION", ""))
    if not end and len(container.streams) == 1:
        end = (container.duration or 0) / 1_000_000
    missing = (end - float(max(packets.ends) * stream.time_base)) * rate
    # Durations are rounded and some writers leave out the last frame's: less than two frames prove nothing.
    return len(packets.pts) + (round(missing) if missing >= 2 else 0)


def _seconds(clock: str) -> float:
    """Seconds of a Matroska tag such as 00:01:02.500000000; 0 where there is none."""
    parts = clock.split(":")
    try:
        hours, minutes, seconds = (float(part) for part in parts)
    except ValueError:
        return 0.0
    return 3600 * hours + 60 * minutes + seconds


def _presentation(packets: _Packets, container: str) -> list[int] | None:
    """Ascending presentation times, None where the file has none that can be trusted."""
    pts = sorted(p for p in packets.pts if p is not None)
    unique = len(set(pts)) == len(packets.pts)
    return pts if unique and container not in _UNTIMED_CONTAINERS else None


def _first_frame(path: Path) -> Any:
    """The first `av.VideoFrame` that decodes, None where there is none."""
    with open_container(path) as container:
        return next(decoded_frames(container, video_streams(container)[0]), None)


def _rate(pts: list[int] | None, time_base: Fraction, nominal: float) -> tuple[float, bool]:
    """Frames per second on average, and whether the gaps are all equal."""
    if pts is None or len(pts) < 2:
        return nominal or 25.0, True
    gaps = [b - a for a, b in pairwise(pts)]
    measured = 1 / float(time_base * Fraction(sum(gaps), len(gaps)))
    # Matroska counts milliseconds: gaps of 33 and 34 are a constant rate.
    constant = max(gaps) - min(gaps) <= max(1, round(0.0015 / float(time_base)))
    # The nominal rate is free of that rounding, but headers lie: it is taken where it agrees.
    return (nominal if nominal and constant and abs(nominal / measured - 1) < 0.01 else measured), constant


def _keyframes(packets: _Packets, pts: list[int] | None) -> tuple[int, ...]:
    if pts is None:
        return tuple(number for number, key in enumerate(packets.keys) if key)
    number = {p: n for n, p in enumerate(pts)}
    keys = (p for p, key in zip(packets.pts, packets.keys, strict=True) if key)
    return tuple(sorted(number[p] for p in keys if p is not None and p in number))
