"""DAVIS scores as the tables of the official evaluation, column for column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from propagate.benchmarks.benchmark import Curve, Table
from propagate.metrics import statistics

METRICS = ("J&F", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay")


def mean_metrics(curves: Sequence[Curve]) -> dict[str, float]:
    """The seven numbers of the official table, under the names `METRICS`; every object counts once.

    Args:
        curves: J and F of at least one object.
    """
    totals: dict[str, float] = {}
    for metric in ("J", "F"):
        objects = [statistics(curve.values[metric]) for curve in curves]
        totals[f"{metric}-Mean"] = float(np.mean([own.mean for own in objects]))
        totals[f"{metric}-Recall"] = float(np.mean([own.recall for own in objects]))
        totals[f"{metric}-Decay"] = float(np.mean([own.decay for own in objects]))
    totals["J&F"] = (totals["J-Mean"] + totals["F-Mean"]) / 2
    return {name: totals[name] for name in METRICS}


def global_table(split: str, totals: Mapping[str, float]) -> Table:
    """`global_results-val.csv`: one row of three decimals."""
    columns = ("J&F-Mean", *METRICS[1:])
    return Table(f"global_results-{split}.csv", columns, (tuple(f"{totals[name]:.3f}" for name in METRICS),))


def sequence_table(split: str, curves: Sequence[Curve]) -> Table:
    """`per-sequence_results-val.csv`: a row of three decimals per object, which it calls `sequence_1`."""
    rows = []
    for curve in curves:
        means = (statistics(curve.values[metric]).mean for metric in ("J", "F"))
        rows.append((f"{curve.clip}_{curve.target}", *(f"{mean:.3f}" for mean in means)))
    return Table(f"per-sequence_results-{split}.csv", ("Sequence", "J-Mean", "F-Mean"), tuple(rows))


def curves_table(curves: Sequence[Curve]) -> Table:
    """`curves.csv`: J and F of every object in every scored frame, to the last digit."""
    rows = []
    for curve in curves:
        pairs = zip(curve.frames, curve.values["J"].tolist(), curve.values["F"].tolist(), strict=True)
        rows += [(curve.clip, curve.target, str(frame), repr(j), repr(f)) for frame, j, f in pairs]
    return Table("curves.csv", ("sequence", "object", "frame", "J", "F"), tuple(rows))
