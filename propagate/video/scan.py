"""The contents of a video, from its packets: number and times of frames, where decoding can start.

Packets are read, not decoded; only the first frame is, for its size and format.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing, suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

from propagate.video.decoding import (
    DECODING_ERRORS,
    Orientation,
    codec_name,
    decoded_frames,
    open_container,
    orientation_of,
    upright_pixels,
    video_streams,
)
from propagate.video.diagnosis import check_file, is_joined, no_frames, no_video, unreadable
from propagate.video.packets import LONGEST_REORDERING, Packets, read_packets, times_rise

# FFmpeg reads only the first of several such files that were joined byte by byte.
_FIRST_PART_ONLY = frozenset({"mp4", "flv", "asf", "ivf", "nut"})


@dataclass(frozen=True)
class Scan:
    """A video file as its packets describe it; see `Packets`, too."""

    path: Path
    container: str  # FFmpeg's names
    codec: str
    width: int  # after rotation
    height: int
    orientation: Orientation
    pixel_aspect: Fraction  # width of a stored pixel divided by its height
    rate: float  # average frames per second
    times: tuple[float, ...]  # presentation time of each frame in seconds, ascending
    pts: tuple[int, ...] | None  # the same in the stream's time base; None: times are missing or wrong, and counted
    in_packet_order: bool  # the codec stores frames in the order of display
    constant: bool  # the gaps between frames are equal, up to the rounding of the container
    promised: int  # number of frames in the header, at least `count`
    keyframes: tuple[int, ...]  # numbers of the frames decoding can start from
    undecodable_start: int  # number of frames before the first one that decodes; `times` does not count them
    edited: bool
    open_gop: bool
    damaged: tuple[int, ...]
    broken: bool
    joined: bool  # another file is appended, which is not read
    streams: int  # number of video streams

    @property
    def count(self) -> int:
        """Number of frames in the file."""
        return len(self.times)

    def notes(self) -> tuple[str, ...]:
        """Return sentences for the user about this file."""
        notes = []
        if self.promised > self.count:
            notes.append(f"The file promises {self.promised} frames and holds {self.count}.")
        if self.damaged:
            places = "1 place" if len(self.damaged) == 1 else f"{len(self.damaged)} places"
            frame = max(self.damaged[0] - self.undecodable_start, 0)
            notes.append(
                f"Data are missing in {places} of the file, the first near frame {frame}: it is damaged or joined of "
                "parts there, and frames may be missing."
            )
        if self.streams > 1:
            notes.append(f"The file holds {self.streams} videos, of which the one that players choose is read.")
        if self.joined:
            notes.append(
                "Another video is appended to this one and is not read. Join them with `ffmpeg -f concat` to read both."
            )
        if self.broken:
            notes.append(f"The file is damaged behind frame {self.count - 1}; what follows cannot be read.")
        if self.undecodable_start:
            notes.append(
                f"The first {self.undecodable_start} frames cannot be decoded: they are damaged or cut off from the "
                "keyframe they need. Counting starts after them."
            )
        if self.pts is None and self.container != "avi":
            notes.append(
                "The presentation times in the file are missing, repeated or out of order. Frames are counted in the "
                f"order of display and timed at {self.rate:.3g} per second."
            )
        if not self.constant:
            notes.append(
                f"The frame rate varies; {self.rate:.3g} per second is the average, each frame's time is true."
            )
        if self.pixel_aspect != 1:
            notes.append(f"Pixels are {self.pixel_aspect} times as wide as high; frames are given as stored.")
        return tuple(notes)


def scan(path: Path) -> Scan:
    """Read all packets of a video file, and decode its first frame, or all where packets do not tell the order."""
    check_file(path)
    try:
        with open_container(path) as container:
            streams = video_streams(container)
            if not streams:
                raise no_video(path, bool(container.streams.audio))
            stream = streams[0]
            if stream.codec_context is None:
                raise no_frames(path, codec_name(stream))
            reorders, holds_back = stream.codec_context.codec.reorder, bool(stream.codec_context.has_b_frames)
            packets = read_packets(container, stream)
            container_name, codec = container.format.name, codec_name(stream)
            containers = set(container_name.split(","))
            time_base, nominal = stream.time_base, float(stream.average_rate or stream.guessed_rate or 0)
            pixel_aspect = Fraction(stream.sample_aspect_ratio or 1)
            stored = stream.frames  # of MP4: samples
            declared = _declared_count(container, stream, packets, nominal)
    except DECODING_ERRORS as error:
        raise unreadable(path, getattr(error, "strerror", None) or str(error)) from None

    with closing(_frames(path)) as frames:
        first = next(frames, None)
    if first is None or not packets.pts:
        raise no_frames(path, codec)
    orientation = orientation_of(first)
    height, width, _ = upright_pixels(first, orientation).shape

    # AVI stores no presentation times; FFmpeg makes them up, out of order where there are B-frames.
    untimed = container_name == "avi" or not any(time is not None for time in packets.pts)
    rises = False if untimed else times_rise(packets, reorders=reorders, holds_back=holds_back)
    skipped, count = first.opaque or 0, len(packets.pts)
    if rises and _comes_late(path, packets, first):
        rises = None
    if rises is None or (untimed and reorders and skipped):
        decoded = [frame.pts for frame in _frames(path)]
        rises = not untimed and all(a is not None and b is not None and a < b for a, b in pairwise(decoded))
        count = len(decoded) + skipped
    if not rises and not {"mp4", "avi"} & containers:
        declared = 0  # it was computed from times
    pts = sorted(time for time in packets.pts if time is not None) if rises else None
    if pts is not None:
        skipped = 0 if first.pts is None else sum(time < first.pts for time in pts)
        pts, count = pts[skipped:], len(pts)
    count -= skipped
    if pts is None:
        keyframes = tuple(number for number, key in enumerate(packets.keys) if key)
    else:
        keys = {time for time, key in zip(packets.pts, packets.keys, strict=True) if key}
        keyframes = tuple(number for number, time in enumerate(pts) if time in keys)
    rate, constant = _rate(pts, time_base, nominal)
    times = tuple(n / rate for n in range(count)) if pts is None else tuple(float(p * time_base) for p in pts)
    return Scan(
        path=path,
        container=container_name,
        codec=codec,
        width=width,
        height=height,
        orientation=orientation,
        pixel_aspect=pixel_aspect,
        rate=rate,
        times=times,
        pts=None if pts is None else tuple(pts),
        in_packet_order=not reorders,
        constant=constant,
        promised=max(count, declared - skipped),
        keyframes=keyframes,
        undecodable_start=skipped,
        # MP4's samples before the edit's keyframe do not even arrive as packets to discard.
        edited=packets.edited or ("mp4" in container_name and 0 < stored != declared),
        open_gop=packets.open_gop,
        damaged=tuple(packets.damaged),
        broken=packets.broken,
        joined=bool(_FIRST_PART_ONLY & containers) and is_joined(path, packets.last_place - 64),
        streams=len(streams),
    )


def _declared_count(container: Any, stream: Any, packets: Packets, rate: float) -> int:
    """Return the number of shown frames according to the header; 0 where it has none.

    MP4 lists every sample, AVI states a number. Matroska and FLV state a time at which the last frame ends.
    """
    formats = set(container.format.name.split(","))
    if "mp4" in formats and stream.frames:
        return sum(not entry.is_discard for entry in stream.index_entries)
    if "avi" in formats:
        return int(stream.frames)
    if not {"matroska", "flv"} & formats or not packets.ends:
        return 0
    end = 0.0
    with suppress(ValueError):  # a Matroska tag such as 00:01:02.500000000
        hours, minutes, seconds = map(float, stream.metadata.get("DURATION", "").split(":"))
        end = 3600 * hours + 60 * minutes + seconds
    if not end and len(container.streams) == 1:
        end = (container.duration or 0) / 1_000_000
    missing = (end - float(max(packets.ends) * stream.time_base)) * rate
    # Durations are rounded and some writers leave out the last frame's: less than two frames prove nothing.
    return len(packets.pts) + (round(missing) if missing >= 2 else 0)


def _frames(path: Path) -> Generator[Any, None, None]:
    with open_container(path) as container:
        yield from decoded_frames(container, video_streams(container)[0])


def _comes_late(path: Path, packets: Packets, first: Any) -> bool:
    """Return whether a later frame has an earlier time than the first one: no frame is lost, the times are wrong."""
    if first.pts is None:
        return False
    early = [number for number, time in enumerate(packets.pts) if time is not None and time < first.pts]
    if not early:
        return False
    with closing(_frames(path)) as frames:
        for frame in frames:
            if frame.pts is not None and frame.pts < first.pts:
                return True
            if (frame.opaque or 0) > early[-1] + LONGEST_REORDERING:
                return False
    return False


def _rate(pts: list[int] | None, time_base: Fraction, nominal: float) -> tuple[float, bool]:
    """Return the average frames per second, and whether all gaps are equal."""
    if pts is None or len(pts) < 2:
        return nominal if 1 <= nominal <= 240 else 25.0, True
    gaps = [b - a for a, b in pairwise(pts)]
    measured = 1 / float(time_base * Fraction(sum(gaps), len(gaps)))
    # Matroska counts milliseconds: gaps of 33 and 34 are a constant rate.
    constant = max(gaps) - min(gaps) <= max(1, round(0.0015 / float(time_base)))
    # The nominal rate is free of that rounding, but headers may be wrong: use it where it agrees.
    return (nominal if nominal and constant and abs(nominal / measured - 1) < 0.01 else measured), constant
