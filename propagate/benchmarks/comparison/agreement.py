"""Pairwise agreement of several results for one clip, without ground truth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from propagate.metrics import region_similarity
from propagate.types import Keypoints, Label, Mask

TOLERANCE = 0.02  # share of the frame's diagonal within which joints agree

Pair = tuple[str, str]


class Agreement:
    """Compare results frame by frame and keep running means; frames are not kept.

    `first` is the given label, whose objects or joints are compared. `columns` are the headings of the rows of `add`,
    `pairs` all pairs of names, and `tolerance` the distance in pixels within which joints agree (None for masks).
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
        """Compare the results of one frame (name -> mask or keypoints) and return its rows of the table as text."""
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
        """Return the mean J over frames and objects, or mean share of joints; None where nothing was compared."""
        pair = self._pair(one, other)
        return self._sums[pair] / self._counts[pair] if self._counts[pair] else None

    def distance(self, one: str, other: str) -> float | None:
        """Return the median over frames of the joints' median distance in pixels; None for masks or without joints."""
        distances = self._distances[self._pair(one, other)]
        return float(np.median(distances)) if distances else None

    def with_others(self, name: str) -> float | None:
        """Return the mean of `between` over all others; None where nothing was compared."""
        values = (self.between(*pair) for pair in self.pairs if name in pair)
        found = [value for value in values if value is not None]
        return sum(found) / len(found) if found else None

    def _pair(self, one: str, other: str) -> Pair:
        return (one, other) if (one, other) in self._sums else (other, one)

    def _count(self, pair: Pair, values: Sequence[float]) -> None:
        self._sums[pair] += sum(values)
        self._counts[pair] += len(values)


def mask_agreement(one: Mask, other: Mask, objects: Sequence[int]) -> dict[int, float]:
    """Return J between two masks, per object; 1 where neither has the object."""
    return {i: float(region_similarity(one.ids == i, other.ids == i)) for i in objects}


def point_agreement(one: Keypoints, other: Keypoints, tolerance: float) -> tuple[float, float]:
    """Return the share of joints that agree, and the median distance in pixels of those present in both, or NaN.

    Joints agree within the tolerance, inclusive. A joint that is absent in both agrees; in only one, it does not.
    """
    both = one.present & other.present
    distances = np.hypot(*(one.positions - other.positions)[both].T.astype(np.float64))
    agreeing = np.count_nonzero(distances <= tolerance) + np.count_nonzero(~one.present & ~other.present)
    share = agreeing / len(both) if len(both) else 1.0
    return float(share), float(np.median(distances)) if len(distances) else math.nan
