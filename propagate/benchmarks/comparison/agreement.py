"""How far several results for one clip agree, two by two, without any truth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from propagate.metrics import region_similarity
from propagate.types import Keypoints, Label, Mask

TOLERANCE = 0.02
"""Joints of two results agree where they lie no further apart than this share of the frame's diagonal."""

Pair = tuple[str, str]


class Agreement:
    """Compares results frame by frame and keeps the means. It holds nothing of a frame that is past.

    Args:
        first: the given label: its objects or joints are compared.
        names: of the results, at least one.
        frame_size: (height, width) in pixels.

    Attributes:
        columns: headings of the rows that `add` gives.
        pairs: every two names, in their order.
        tolerance: of joints, in pixels; None for masks.
    """

    def __init__(self, first: Label, names: Sequence[str], frame_size: tuple[int, int]) -> None:
        self._first = first
        self.pairs: tuple[Pair, ...] = tuple(combinations(names, 2))
        masks = isinstance(first, Mask)
        self.tolerance = None if masks else TOLERANCE * math.hypot(*frame_size)
        self.columns = (
            ("frame", "object", "config", "other", "J")
            if masks
            else ("frame", "config", "other", "share_within_tolerance", "median_distance_px")
        )
        self._sums: dict[Pair, float] = dict.fromkeys(self.pairs, 0.0)
        self._counts: dict[Pair, int] = dict.fromkeys(self.pairs, 0)
        self._distances: dict[Pair, list[float]] = {pair: [] for pair in self.pairs}

    def add(self, frame: int, labels: Mapping[str, Label]) -> list[tuple[str, ...]]:
        """Compare the results of one frame.

        Args:
            frame: its index.
            labels: name -> mask or keypoints, of every name.

        Returns:
            The table's rows of this frame, as text.
        """
        rows = list[tuple[str, ...]]()
        for pair in self.pairs:
            one, other = (labels[name] for name in pair)
            if isinstance(self._first, Mask):
                assert isinstance(one, Mask)
                assert isinstance(other, Mask)
                similarities = mask_agreement(one, other, self._first.objects)
                self._count(pair, list(similarities.values()))
                rows += [(str(frame), str(i), *pair, f"{value:.4f}") for i, value in similarities.items()]
            else:
                assert isinstance(one, Keypoints)
                assert isinstance(other, Keypoints)
                assert self.tolerance is not None
                share, median = point_agreement(one, other, self.tolerance)
                self._count(pair, [share])
                if not math.isnan(median):
                    self._distances[pair].append(median)
                rows.append((str(frame), *pair, f"{share:.4f}", "" if math.isnan(median) else f"{median:.2f}"))
        return rows

    def between(self, one: str, other: str) -> float | None:
        """Mean J over frames and objects, or mean share of joints over frames; None where nothing was compared."""
        pair = self._pair(one, other)
        return self._sums[pair] / self._counts[pair] if self._counts[pair] else None

    def distance(self, one: str, other: str) -> float | None:
        """Median over the frames of the joints' median distance, in pixels; None for masks, or where there is none."""
        distances = self._distances[self._pair(one, other)]
        return float(np.median(distances)) if distances else None

    def with_others(self, name: str) -> float | None:
        """Mean of `between` over all others; None where nothing was compared."""
        values = [self.between(*pair) for pair in self.pairs if name in pair]
        found = [value for value in values if value is not None]
        return sum(found) / len(found) if found else None

    def _pair(self, one: str, other: str) -> Pair:
        return (one, other) if (one, other) in self._sums else (other, one)

    def _count(self, pair: Pair, values: Sequence[float]) -> None:
        self._sums[pair] += sum(values)
        self._counts[pair] += len(values)


def mask_agreement(one: Mask, other: Mask, objects: Sequence[int]) -> dict[int, float]:
    """J between two masks, per object; 1 where neither has it."""
    return {i: float(region_similarity(one.ids == i, other.ids == i)) for i in objects}


def point_agreement(one: Keypoints, other: Keypoints, tolerance: float) -> tuple[float, float]:
    """Share of the joints that agree, and the median distance of those that both have.

    A joint that neither has agrees, one that only one has does not.

    Args:
        one, other: the same joints in the same order.
        tolerance: in pixels; a distance of exactly that agrees.

    Returns:
        Share in [0, 1], and pixels; NaN where there is no joint that both have.
    """
    both = one.present & other.present
    distances = np.hypot(*(one.positions - other.positions)[both].T.astype(np.float64))
    agreeing = np.count_nonzero(distances <= tolerance) + np.count_nonzero(~one.present & ~other.present)
    share = agreeing / len(both) if len(both) else 1.0
    return float(share), float(np.median(distances)) if len(distances) else math.nan
