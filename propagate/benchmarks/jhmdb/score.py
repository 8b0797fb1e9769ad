"""PCK of JHMDB distances per threshold, clip and joint, as curves and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from propagate.benchmarks.benchmark import Curve, Published, Scores, Table
from propagate.benchmarks.jhmdb.tree import JOINTS
from propagate.benchmarks.scoring import cell, curve_table, mean, unscored_remark
from propagate.metrics import joint_pck

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5)
PUBLISHED = tuple(
    Published(
        method,
        {"PCK@0.1": first, "PCK@0.2": second},
        "Tang et al., Emergent Correspondence from Image Diffusion, NeurIPS 2023, table",
        f"propagate evaluate jhmdb --data JHMDB --protocol videowalk --config {preset}" if preset else "",
    )
    for method, first, second, preset in (
        ("DIFT_adm", 0.634, 0.843, "dift_adm_jhmdb"),
        ("SFC", 0.619, 0.830, ""),
        ("DIFT_sd", 0.611, 0.818, "dift_sd_jhmdb"),
        ("CRW", 0.588, 0.803, ""),
    )
)


def pck_scores(distances: Mapping[str, Float64[ndarray, "_ 15"]], problems: Mapping[str, tuple[str, ...]]) -> Scores:
    """Return PCK@0.1 to 0.5, the mean over the joints, and the coverage, the share of counted pairs.

    Tables: `pck.csv` (threshold x joint, and the mean), `per-sequence_pck.csv`, `curves.csv` (per frame, the share of
    counted joints that are right).

    Args:
        distances: clip -> distances of its scored frames, from frame 1 on, in units of the normaliser; NaN where a
            joint does not count (`propagate.metrics.pck_distances`). At least one clip.
        problems: clip -> why it was not scored.
    """
    every = [*distances.values()]
    totals = _totals(every)
    clips = {name: _totals([values]) for name, values in distances.items()}
    curves = tuple(_curve(name, values) for name, values in distances.items())
    joint_rows = tuple(
        (f"{threshold}", cell(totals[f"PCK@{threshold}"]), *map(cell, joint_pck(every, threshold).tolist()))
        for threshold in THRESHOLDS
    )
    clip_rows = tuple(
        (name, str(len(distances[name])), *map(cell, metrics.values())) for name, metrics in clips.items()
    )
    tables = (
        Table("pck.csv", ("threshold", "mean", *JOINTS), joint_rows),
        Table("per-sequence_pck.csv", ("sequence", "frames", *totals), clip_rows),
        curve_table(curves),
    )
    return Scores(totals, clips, curves, tables, problems, _remarks(every, problems))


def _totals(distances: Sequence[Float64[ndarray, "_ 15"]]) -> dict[str, float]:
    totals = {f"PCK@{threshold}": mean(joint_pck(distances, threshold)) for threshold in THRESHOLDS}
    return totals | {"coverage": float(np.mean(~np.isnan(np.concatenate(distances))))}


def _curve(clip: str, distances: Float64[ndarray, "t 15"]) -> Curve:
    values = {f"PCK@{t}": np.array([mean(joint_pck([row[None]], t)) for row in distances]) for t in THRESHOLDS}
    return Curve(clip, "joints", tuple(range(1, len(distances) + 1)), values)


def _remarks(distances: Sequence[Float64[ndarray, "_ 15"]], problems: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    counted = ~np.isnan(np.concatenate(distances))
    remarks = [f"Coverage: {counted.sum()} of {counted.size} pairs of frame and joint counted ({counted.mean():.1%})."]
    if never := [name for name, anywhere in zip(JOINTS, counted.any(0), strict=True) if not anywhere]:
        remarks.append(f"Never counted, and therefore not in the mean of the joints: {', '.join(never)}.")
    return (*remarks, *unscored_remark(distances, problems))
