"""What the packets of a video tell without being decoded: how many there are, their times, their order of display."""

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
    """The packets that are shown, in decoding order.

    Attributes:
        pts: presentation times in units of the stream's time base, None where the file has none.
        keys: whether decoding can start there.
        ends: where each ends, in the same units.
        parsed: places in order of display, from the pictures' own headers (H.264 and HEVC); None where they cannot be
            read.
        discarded: an edit list takes some out.
        repeated: an edit list shows some twice.
        open_gop: some that follow a keyframe are shown before it.
        last_place: where the last one lies in the file, in bytes.
        damaged: numbers of the packets that the container itself calls damaged, such as MPEG-TS where data are missing.
        broken: the container could not be read to its end.
    """

    pts: list[int | None] = field(default_factory=list)
    keys: list[bool] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    parsed: list[int] | None = None
    discarded: bool = False
    repeated: bool = False
    open_gop: bool = False
    last_place: int = 0
    damaged: list[int] = field(default_factory=list)
    broken: bool = False


def read_packets(container: Any, stream: Any) -> Packets:
    """Read all packets of a stream; of a damaged container those before the damage."""
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
        packets.discarded |= packet.is_discard
        if is_shown(packet, codec):
            packets.repeated |= packet.pos is not None and (packet.pos, packet.size) in places
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
    """Tell whether every frame has a presentation time and the times rise in order of display.

    Args:
        packets: of the stream.
        reorders: the codec can store frames in another order than they are shown in.
        holds_back: the decoder says that frames of this stream are stored in another order.

    Returns:
        None where only decoding tells.
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
    if rising:  # which is also what a writer leaves that does not know of the other order
        return None if holds_back else True
    ranks = _ranks(times)
    near = all(abs(rank - place) <= LONGEST_REORDERING for place, rank in enumerate(ranks))
    # whatever stands before a keyframe is shown before it
    behind = zip(packets.keys, ranks, accumulate(ranks, max), strict=True)
    return True if near and all(rank == highest for key, rank, highest in behind if key) else None


def _ranks(values: Sequence[int]) -> list[int]:
    ranks = [0] * len(values)
    for rank, place in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        ranks[place] = rank
    return ranks


class _ParsedOrder:
    """Places in order of display as FFmpeg's filter `dts2pts` reads them from the pictures' headers.

    The filter counts wrongly behind a second keyframe, so that there is one from each keyframe to the next; frames
    before a keyframe are shown before all that follow it.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._places: list[int] | None = []
        self._filter: Any = None
        self._first: Any = None  # keyframes that stand alone need no filter
        self._found: dict[int, int | None] = {}
        self._fed = 0

    def add(self, packet: Any) -> None:
        """Take the next packet that is shown, in decoding order; it is changed."""
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
        """The place of each packet; None where the headers of some cannot be read, or of another codec."""
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
