"""PCK@0.2 of BADJA's joints: which count and which are right, and the tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64
from numpy import ndarray

from propagate.benchmarks.badja.tree import JOINTS, BadjaSequence
from propagate.benchmarks.benchmark import Curve, Published, Scores, Table
from propagate.benchmarks.scoring import cell, curve_table, mean, unscored_remark

THRESHOLD = 0.2
METRIC = f"PCK@{THRESHOLD}"
PUBLISHED = tuple(
    Published(method, {METRIC: value}, f"Harley et al., Particle Video Revisited (PIPs), ECCV 2022, table{note}")
    for method, value, note in (
        ("PIPs", 0.623, "; its own path counts the given frame too"),
        ("DINO", 0.505, ""),
        ("RAFT", 0.456, ""),
    )
)


@dataclass(frozen=True, eq=False)
class ScoredClip:
    """The joints of a clip's scored frames, each (S, 20) bool."""

    frames: tuple[int, ...]  # positions of the scored frames in the clip
    # counted, lost, right: joints that count, have no position, are right
    counted: Bool[ndarray, "s 20"]
    lost: Bool[ndarray, "s 20"]
    right: Bool[ndarray, "s 20"]


def score_clip(sequence: BadjaSequence, predicted: Float64[ndarray, "s 20 2"]) -> ScoredClip:
    """Score the predictions of the annotated frames after the first; NaN where a joint is lost."""
    counted = sequence.visible[1:] & np.isfinite(sequence.joints[0]).all(1)
    distances = np.hypot(*np.moveaxis(predicted - sequence.joints[1:], 2, 0))
    right = counted & (distances < tolerances(sequence)[1:, None])
    lost = counted & ~np.isfinite(predicted).all(2)
    return ScoredClip(tuple(sequence.annotated[1:].tolist()), counted, lost, right)


def tolerances(sequence: BadjaSequence) -> Float64[ndarray, " a"]:
    """Return the distance in pixels within which a joint is right, per annotated frame."""
    pixels: Float64[ndarray, " a"] = THRESHOLD * np.sqrt(sequence.areas.astype(np.float64))
    return pixels


def pck_scores(scored: Mapping[str, ScoredClip], problems: Mapping[str, tuple[str, ...]]) -> Scores:
    """Return PCK@0.2, the mean over the videos, and the coverage, for at least one scored clip."""
    clips = {
        name: {METRIC: _share(one.right, one.counted), "coverage": _coverage([one])} for name, one in scored.items()
    }
    totals = {
        METRIC: mean(np.array([metrics[METRIC] for metrics in clips.values()])),
        "coverage": _coverage([*scored.values()]),
    }
    curves = tuple(_curve(name, one) for name, one in scored.items())
    tables = (_joint_table(scored, clips, totals), curve_table(curves))
    return Scores(totals, clips, curves, tables, problems, _remarks(scored, problems))


def _share(right: Bool[ndarray, "*any"], counted: Bool[ndarray, "*any"]) -> float:
    return float(right.sum() / counted.sum()) if counted.any() else float("nan")


def _coverage(scored: Sequence[ScoredClip]) -> float:
    return float(np.concatenate([one.counted for one in scored]).mean())


def _curve(name: str, scored: ScoredClip) -> Curve:
    shares = [_share(right, counted) for right, counted in zip(scored.right, scored.counted, strict=True)]
    return Curve(name, "joints", scored.frames, {METRIC: np.array(shares)})


def _joint_table(
    scored: Mapping[str, ScoredClip], clips: Mapping[str, Mapping[str, float]], totals: Mapping[str, float]
) -> Table:
    shares = np.array(
        [[_share(one.right[:, j], one.counted[:, j]) for j in range(len(JOINTS))] for one in scored.values()]
    )
    means = [mean(column) for column in shares.T]
    rows = [
        (name, cell(metrics[METRIC]), cell(metrics["coverage"]), *map(cell, row))
        for name, metrics, row in zip(
            [*scored, "mean"], [*clips.values(), totals], [*shares.tolist(), means], strict=True
        )
    ]
    return Table("pck.csv", ("sequence", METRIC, "coverage", *JOINTS), tuple(rows))


def _remarks(scored: Mapping[str, ScoredClip], problems: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    counted = np.concatenate([one.counted for one in scored.values()])
    lost = sum(int(one.lost.sum()) for one in scored.values())
    coverage = f"{counted.sum()} of {counted.size} pairs of frame and joint counted ({counted.mean():.1%})"
    return (f"Coverage: {coverage}, {lost} of them lost and therefore wrong.", *unscored_remark(scored, problems))
