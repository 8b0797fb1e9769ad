from __future__ import annotations

import math

import numpy as np
import pytest

from propagate.benchmarks.comparison.agreement import TOLERANCE, Agreement, mask_agreement, point_agreement
from propagate.types import Keypoints, Mask

SIZE = (30, 40)  # diagonal 50, so that the tolerance is a whole pixel
NAN = float("nan")


def box(columns: slice, number: int = 1) -> Mask:
    ids = np.zeros(SIZE, np.uint8)
    ids[:10, columns] = number
    return Mask(ids)


def points(*positions: tuple[float, float]) -> Keypoints:
    return Keypoints(np.array(positions, np.float32), tuple("abcd"[: len(positions)]))


def test_masks_agree_by_intersection_over_union():
    found = mask_agreement(box(slice(0, 10)), box(slice(5, 15)), (1, 2))
    assert found == {1: pytest.approx(5 / 15), 2: 1.0}


def test_points_agree_within_the_tolerance_and_where_both_are_absent():
    one = points((0, 0), (10, 10), (NAN, NAN), (NAN, NAN))
    other = points((0, 1), (10, 14), (NAN, NAN), (5, 5))
    share, median = point_agreement(one, other, tolerance=1)
    assert share == 0.5  # the first, and the third that neither has
    assert median == pytest.approx(2.5)  # of 1 and 4


def test_no_joint_that_both_have():
    share, median = point_agreement(points((1, 1)), points((NAN, NAN)), 1)
    assert share == 0
    assert math.isnan(median)


def test_rows_and_means_of_masks():
    one, other, third = box(slice(0, 10)), box(slice(5, 15)), box(slice(0, 10))
    agreement = Agreement(one, ["x", "y", "z"], SIZE)
    assert agreement.between("x", "y") is None
    assert agreement.with_others("x") is None
    rows = agreement.add(3, {"x": one, "y": other, "z": third})
    assert agreement.columns == ("frame", "object", "config", "other", "J")
    assert rows == [
        ("3", "1", "x", "y", "0.3333"),
        ("3", "1", "x", "z", "1.0000"),
        ("3", "1", "y", "z", "0.3333"),
    ]
    agreement.add(4, {"x": one, "y": one, "z": third})
    assert agreement.between("x", "y") == agreement.between("y", "x") == pytest.approx((1 / 3 + 1) / 2)
    assert agreement.with_others("x") == pytest.approx((2 / 3 + 1) / 2)
    assert agreement.tolerance is None
    assert agreement.distance("x", "y") is None


def test_rows_and_means_of_keypoints():
    first = points((0, 0), (5, 5))
    agreement = Agreement(first, ["x", "y"], SIZE)
    assert agreement.tolerance == pytest.approx(50 * TOLERANCE)
    assert agreement.add(1, {"x": first, "y": points((0, 0.5), (5, 25))}) == [("1", "x", "y", "0.5000", "10.25")]
    assert agreement.add(2, {"x": first, "y": points((NAN, NAN), (NAN, NAN))}) == [("2", "x", "y", "0.0000", "")]
    assert agreement.between("x", "y") == pytest.approx(0.25)
    assert agreement.distance("x", "y") == pytest.approx(10.25)


def test_one_result_has_nobody_to_agree_with():
    agreement = Agreement(box(slice(0, 3)), ["x"], SIZE)
    assert agreement.add(1, {"x": box(slice(0, 3))}) == []
    assert agreement.with_others("x") is None
