from __future__ import annotations

import numpy as np
import pytest

from propagate.benchmarks.benchmark import Curve
from propagate.benchmarks.report.worst import worst_frames


def curve(clip: str, values: dict[int, float], target: str = "1", metric: str = "J") -> Curve:
    return Curve(clip, target, tuple(values), {metric: np.array(list(values.values()), np.float64)})


def places(curves: list[Curve], count: int = 5, apart: int = 20) -> list[tuple[str, int]]:
    return [(found.clip, found.frame) for found in worst_frames(curves, count, apart)]


def test_neighbours_of_a_taken_frame_are_left_out_and_other_clips_are_not():
    values = dict.fromkeys(range(1, 60), 0.9) | {30: 0.1, 31: 0.11, 49: 0.12, 50: 0.13}
    assert places([curve("a", values), curve("b", {40: 0.2})], count=3) == [("a", 30), ("a", 50), ("b", 40)]


def test_the_distance_is_measured_to_every_taken_frame():
    # 45 is far enough from 20, but not from 60; 40 is just far enough from both
    assert places([curve("a", {20: 0.1, 60: 0.2, 45: 0.3, 40: 0.4})]) == [("a", 20), ("a", 60), ("a", 40)]


def test_a_frame_is_worth_the_mean_over_targets_and_metrics():
    curves = [
        Curve("a", "1", (1, 2), {"J": np.array([0.0, 0.5]), "F": np.array([0.4, 0.5])}),
        Curve("a", "2", (1, 2), {"J": np.array([0.8, 0.1]), "F": np.array([0.6, 0.3])}),
    ]
    (worst,) = worst_frames(curves, count=5, apart=20)
    assert worst.frame == 2
    assert worst.value == pytest.approx((0.5 + 0.5 + 0.1 + 0.3) / 4)
    assert worst.metrics == {"J": pytest.approx(0.3), "F": pytest.approx(0.4)}


def test_frames_in_which_nothing_counted_are_never_worst():
    nan = float("nan")
    assert places([curve("a", {1: nan, 30: 0.5}), curve("a", {1: nan, 30: nan}, target="2")]) == [("a", 30)]


def test_equal_frames_come_in_order():
    assert places([curve("b", {50: 0.0, 10: 0.0}), curve("a", {5: 0.0})]) == [("b", 10), ("b", 50), ("a", 5)]


def test_no_curves_no_frames():
    assert worst_frames([], count=5, apart=20) == ()
