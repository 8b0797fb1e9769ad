"""Which frame of its video a decoded picture is."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from propagate.video.packets import LONGEST_REORDERING
from propagate.video.scan import Scan


class Numbering:
    """The numbers of decoded pictures. Frames that are lost to damage leave a gap, not a shift.

    A gap that presentation times tell of is believed once as many pictures as a decoder reorders came without filling
    it. Where one fills it the times are wrong, and pictures are counted from there on.

    Attributes:
        times_rise: as far as was seen, later pictures have later times.
    """

    def __init__(self, scan: Scan) -> None:
        self._scan = scan
        self.times_rise = True

    def __call__(self, pictures: Iterable[Any]) -> Iterator[tuple[int, Any]]:
        """Yield the number of each picture, from 0 and rising, and the picture.

        Args:
            pictures: `av.VideoFrame`s in the order in which they are decoded, from the start of the video.
        """
        source, waiting, following = iter(pictures), deque[Any](), 0
        while True:
            picture = waiting.popleft() if waiting else next(source, None)
            if picture is None:
                return
            index = self._place(picture, following)
            if index > following and not self._scan.in_packet_order:
                while len(waiting) < LONGEST_REORDERING and (another := next(source, None)) is not None:
                    waiting.append(another)
                if any(self._place(later, index) < index for later in waiting):
                    self.times_rise, index = False, following
            if index < following:
                self.times_rise, index = False, following
            yield index, picture
            following = index + 1

    def _place(self, picture: Any, otherwise: int) -> int:
        scan = self._scan
        if scan.pts is not None and self.times_rise and picture.pts is not None:
            index = bisect_left(scan.pts, picture.pts)
            return index if index < scan.count else otherwise
        if scan.in_packet_order and picture.opaque is not None:
            return int(picture.opaque) - scan.undecodable_start
        return otherwise
