"""The worst frames of a method."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from propagate.benchmarks.benchmark import Curve


@dataclass(frozen=True)
class WorstFrame:
    """A frame with a low score."""

    clip: str  # name of the clip
    frame: int  # position in the clip
    value: float  # mean over all counted targets and metrics, a share in [0, 1]
    metrics: Mapping[str, float]  # metric -> mean over the counted targets


def worst_frames(curves: Iterable[Curve], count: int, apart: int) -> tuple[WorstFrame, ...]:
    """Return at most `count` frames with the lowest mean over targets and metrics; ties in the given order.

    Two frames of one clip are at least `apart` frames apart.
    """
    taken: list[WorstFrame] = []
    for found in sorted(_frames(curves), key=lambda frame: frame.value):
        if all(found.clip != other.clip or abs(found.frame - other.frame) >= apart for other in taken):
            taken.append(found)
        if len(taken) == count:
            break
    return tuple(taken)


def _frames(curves: Iterable[Curve]) -> Iterator[WorstFrame]:
    """Yield each frame with a score, clip by clip in ascending order."""
    values: dict[str, dict[int, dict[str, list[float]]]] = {}
    for curve in curves:
        frames = values.setdefault(curve.clip, {})
        for metric, series in curve.values.items():
            for frame, value in zip(curve.frames, series.tolist(), strict=True):
                if not np.isnan(value):
                    frames.setdefault(frame, {}).setdefault(metric, []).append(value)
    for clip, frames in values.items():
        for frame, metrics in sorted(frames.items()):
            every = [value for of_metric in metrics.values() for value in of_metric]
            means = {metric: float(np.mean(of_metric)) for metric, of_metric in metrics.items()}
            yield WorstFrame(clip, frame, float(np.mean(every)), means)
