"""Videos with damaged packets: missing, doubled, out of order, with wrong times."""

from __future__ import annotations

import io
from random import Random
from typing import Any

import av

SUFFIXES = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm", ".avi": "avi", ".ts": "mpegts"}
SUFFIXES |= {".flv": "flv", ".nut": "nut", ".wmv": "asf", ".mpg": "mpeg"}


def mutate_packets(content: bytes, suffix: str, rng: Random) -> bytes:
    """Return the same video with one to three damages to its packets; the content itself where it cannot be muxed."""
    try:
        with av.open(io.BytesIO(content)) as given:
            stream = given.streams.video[0]
            buffer = io.BytesIO()
            with av.open(buffer, "w", format=SUFFIXES[suffix]) as out:
                copy = out.add_stream_from_template(stream)
                packets = [packet for packet in given.demux(stream) if packet.size]
                for _ in range(rng.choice((1, 1, 2, 3))):
                    packets = _changed(packets, rng)
                for packet in packets:
                    packet.stream = copy
                    out.mux(packet)
        return buffer.getvalue()
    except (av.FFmpegError, ValueError, IndexError, TypeError, OverflowError):
        return content


def _changed(packets: list[Any], rng: Random) -> list[Any]:
    if not packets:
        return packets
    place = rng.randrange(len(packets))
    damage = rng.randrange(8)
    if damage == 0:
        return packets[:place] + packets[place + 1 :]
    if damage == 1:
        return packets[place:]
    if damage == 2:
        other = rng.randrange(len(packets))
        first, second = packets[place], packets[other]
        first.pts, second.pts = second.pts, first.pts
    elif damage == 3:
        packets[place].pts = rng.choice((None, -5, 0, 2**31, 2**40, packets[place].pts))
    elif damage == 4:
        gap = rng.choice((1, 1000, 10**6, 10**9))
        for packet in packets[place:]:
            packet.pts, packet.dts = (packet.pts or 0) + gap, (packet.dts or 0) + gap
    elif damage == 5:
        for packet in packets:
            packet.pts = packet.dts  # in the order of coding
    elif damage == 6:
        packets[place].is_keyframe = not packets[place].is_keyframe
    else:
        for packet in packets:
            packet.pts = packet.dts = packets[0].dts
    return packets
