"""Where a method fails: its worst frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from propagate.benchmarks.benchmark import Curve


@dataclass(frozen=True)
class WorstFrame:
    """A frame in which a method does badly.

    Attributes:
        clip: name of the clip.
        frame: position in the clip.
        value: mean over all targets and metrics that counted in this frame, a share in [0, 1].
        metrics: metric -> mean over the targets that counted.
    """

    clip: str
    frame: int
    value: float
    metrics: Mapping[str, float]


def worst_frames(curves: Iterable[Curve], count: int, apart: int) -> tuple[WorstFrame, ...]:
    """The frames with the lowest mean over targets and metrics, not several of one moment.

    The lowest one is taken, then the next lowest that is at least `apart` frames away from every frame taken in the
    same clip, and so on. Of equal ones the first clip and the first frame come first.

    Args:
        curves: of one method, of all clips; the order of clips is theirs.
        count: how many at most.
        apart: how many frames of one clip lie between two of them, at least.
    """
    taken: list[WorstFrame] = []
    for found in sorted(_frames(curves), key=lambda frame: frame.value):
        if all(found.clip != other.clip or abs(found.frame - other.frame) >= apart for other in taken):
            taken.append(found)
        if len(taken) == count:
            break
    return tuple(taken)


def _frames(curves: Iterable[Curve]) -> Iterator[WorstFrame]:
    """Every frame of every clip in which anything counted, clip by clip in ascending order."""
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
