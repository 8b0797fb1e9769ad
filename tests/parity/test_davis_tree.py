"""A whole DAVIS-2017 tree and results, evaluated by the official script.

The masks are results of OSVOS, made small, as published with davis2017-evaluation (BSD 3-Clause).
"""

from __future__ import annotations

import json

import pytest

from propagate.benchmarks.davis.clips import load_davis
from propagate.metrics import statistics
from tests.places import PARITY_DATA

TREE = PARITY_DATA / "davis_tree_0"


@pytest.fixture(scope="module")
def scores():
    return load_davis(TREE / "DAVIS", year=2017, sequences=("judo", "kite-surf")).score(TREE / "results")


@pytest.mark.parametrize("number", [0, 1])
def test_the_official_tables_to_the_letter(scores, number):
    table = scores.tables[number]
    assert table.file == ("global_results-val.csv", "per-sequence_results-val.csv")[number]
    written = "".join(",".join(cells) + "\n" for cells in (table.columns, *table.rows))
    assert written.encode() == (TREE / table.file).read_bytes()


def test_values_per_frame(scores):
    golden = json.loads((TREE / "per_frame.json").read_text())
    assert [(curve.clip, curve.target) for curve in scores.curves] == [
        (clip, str(row + 1)) for clip, metrics in golden.items() for row in range(len(metrics["J"]))
    ]
    for curve in scores.curves:
        assert curve.frames == tuple(range(1, {"judo": 7, "kite-surf": 6}[curve.clip]))
        for metric in ("J", "F"):
            expected = golden[curve.clip][metric][int(curve.target) - 1]
            assert curve.values[metric].tolist() == pytest.approx(expected, rel=0, abs=1e-9)


def test_statistics_per_object_and_over_all(scores):
    golden = json.loads((TREE / "metrics.json").read_text())
    for metric in ("J", "F"):
        found = [statistics(curve.values[metric]) for curve in scores.curves]
        named = [f"{curve.clip}_{curve.target}" for curve in scores.curves]
        assert dict(zip(named, (own.mean for own in found), strict=True)) == pytest.approx(
            golden[metric]["M_per_object"], rel=0, abs=1e-9
        )
        for letter, name in (("M", "mean"), ("R", "recall"), ("D", "decay")):
            expected = golden[metric][letter]
            assert [getattr(own, name) for own in found] == pytest.approx(expected, rel=0, abs=1e-9)
            total = scores.totals[f"{metric}-{name.capitalize()}"]
            assert total == pytest.approx(sum(expected) / len(expected), rel=0, abs=1e-9)


def test_an_object_that_is_never_predicted_is_told(scores):
    assert not scores.problems
    assert scores.remarks == ("kite-surf: object 3 is in none of the scored results and counts as empty.",)
