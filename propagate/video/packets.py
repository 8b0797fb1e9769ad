"""The packets of a video, read without decoding: their number, times and order of display."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from av.bitstream import BitStreamFilterContext

from propagate.video.decoding import DECODING_ERRORS, codec_name, is_shown

# H.264 and HEVC hold back 16 frames at most to bring them into order; other codecs hold back one.
LONGEST_REORDERING = 16


@dataclass
class Packets:
    """The packets that are shown, in decoding order."""

    pts: list[int | None] = field(default_factory=list)  # presentation times in the stream's time base
    keys: list[bool] = field(default_factory=list)  # whether decoding can start there
    ends: list[int] = field(default_factory=list)
    parsed: list[int] | None = None  # places in order of display, from the pictures' headers (H.264 and HEVC)
    edited: bool = False  # an edit list removes frames or repeats them
    open_gop: bool = False  # frames that follow a keyframe are shown before it
    last_place: int = 0  # of a packet in the file, in bytes
    damaged: list[int] = field(default_factory=list)  # numbers of packets that the container reports as damaged
    broken: bool = False  # the container could not be read to its end


def read_packets(container: Any, stream: Any) -> Packets:
    """Read all packets of a stream, up to the first damage of the container."""
    packets, key, codec = Packets(), None, codec_name(stream)
    places: set[tuple[int, int]] = set()
    order = _ParsedOrder(stream)
    demuxed = container.demux(stream)
    while True:
        try:
            packet = next(demuxed, None)
        except DECODING_ERRORS:
            packets.broken, packet = True, None
        if packet is None:
            packets.parsed = order.places()
            return packets
        if not packet.size:
            continue
        packets.edited |= packet.is_discard
        if is_shown(packet, codec):
            packets.edited |= packet.pos is not None and (packet.pos, packet.size) in places
            places.add((packet.pos, packet.size))
            packets.last_place = max(packets.last_place, packet.pos or 0)
            if packet.is_keyframe:
                key = packet.pts
            elif None not in (key, packet.pts) and packet.pts < key:
                packets.open_gop = True
            if packet.is_corrupt:
                packets.damaged.append(len(packets.pts))
            packets.pts.append(packet.pts)
            packets.keys.append(packet.is_keyframe)
            packets.ends.append((packet.pts or 0) + (packet.duration or 0))
            order.add(packet)


def times_rise(packets: Packets, *, reorders: bool, holds_back: bool) -> bool | None:
    """Return whether every frame has a presentation time and they rise in order of display; None: decode to know.

    `reorders`: the codec can store frames in another order; `holds_back`: the decoder reports that this stream does.
    """
    times = [time for time in packets.pts if time is not None]
    whole = len(set(times)) == len(packets.pts)
    rising = times == sorted(times)
    if not reorders:
        return whole and rising
    if not whole:
        return None
    if packets.parsed is not None:
        return True if _ranks(times) == packets.parsed else None
    if rising:  # also the result of a writer that ignores the order of display
        return None if holds_back else True
    ranks = _ranks(times)
    near = all(abs(rank - place) <= LONGEST_REORDERING for place, rank in enumerate(ranks))
    # all frames before a keyframe are shown before it
    behind = zip(packets.keys, ranks, accumulate(ranks, max), strict=True)
    return True if near and all(rank == highest for key, rank, highest in behind if key) else None


def _ranks(values: Sequence[int]) -> list[int]:
    ranks = [0] * len(values)
    for rank, place in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        ranks[place] = rank
    return ranks


class _ParsedOrder:
    """Places in order of display, from the pictures' headers by FFmpeg's filter `dts2pts`.

    The filter counts wrongly after a second keyframe, so each keyframe starts a new one; frames before a keyframe are
    shown before all that follow it.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._places: list[int] | None = []
        self._filter: Any = None
        self._first: Any = None  # keyframes that stand alone need no filter
        self._found: dict[int, int | None] = {}
        self._fed = 0

    def add(self, packet: Any) -> None:
        """Add the next packet that is shown, in decoding order; modifies it."""
        if self._places is None:
            return
        if packet.is_keyframe:
            self._end_group()
        if self._filter is None and self._first is None:
            self._first = packet
            return
        try:
            if self._filter is None:
                self._filter = BitStreamFilterContext("dts2pts", self._stream)
                self._feed(self._first)
                self._first = None
            self._feed(packet)
        except DECODING_ERRORS:  # another codec, or damage
            self._places = self._first = self._filter = None

    def places(self) -> list[int] | None:
        """Return the place of each packet; None for another codec or a header that cannot be read."""
        self._end_group()
        return self._places

    def _feed(self, packet: Any) -> None:
        if packet is not None:
            packet.dts, packet.pts = self._fed, None
            self._fed += 1
        self._found |= {filtered.dts: filtered.pts for filtered in self._filter.filter(packet)}

    def _end_group(self) -> None:
        if self._places is None:
            return
        if self._filter is None:
            self._places += [len(self._places)] if self._first is not None else []
            self._first = None
            return
        try:
            self._feed(None)
        except DECODING_ERRORS:
            self._found.clear()
        times = [self._found.get(number) for number in range(self._fed)]
        known = [time for time in times if time is not None]
        if len(set(known)) == self._fed:
            self._places += [len(self._places) + rank for rank in _ranks(known)]
        else:
            self._places = None
        self._filter, self._found, self._fed = None, {}, 0
