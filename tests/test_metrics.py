from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from propagate.metrics import boundary_accuracy, boundary_map, box_side, correct_keypoints, region_similarity

DATA = Path(__file__).parent / "parity" / "data"


def square(top: int, left: int, side: int, size: tuple[int, int] = (40, 60)) -> np.ndarray:
    mask = np.zeros(size, bool)
    mask[top : top + side, left : left + side] = True
    return mask


def test_j_and_f_equal_the_official_ones_on_edge_cases():
    golden = np.load(DATA / "davis_metrics_3.npz")
    void = golden["void"].astype(bool)
    for index, case in enumerate(golden["case"]):
        truth, prediction = golden["truth"][index] == 1, golden["prediction"][index] == 1
        assert region_similarity(truth, prediction) == pytest.approx(golden["J"][0, index], abs=1e-9), case
        assert boundary_accuracy(truth, prediction) == pytest.approx(golden["F"][0, index], abs=1e-9), case
        assert region_similarity(truth, prediction, void[index]) == pytest.approx(golden["J_void"][0, index], abs=1e-9)
        assert boundary_accuracy(truth, prediction, void[index]) == pytest.approx(golden["F_void"][0, index], abs=1e-9)
        np.testing.assert_array_equal(boundary_map(truth), golden["truth_boundary"][index] > 0)


def test_j_of_a_shifted_square():
    assert region_similarity(square(5, 5, 10), square(5, 10, 10)) == pytest.approx(50 / 150)


def test_f_forgives_a_shift_within_the_tolerance_and_no_more():
    # 480x854: 8 pixels
    truth = square(100, 100, 200, (480, 854))
    assert boundary_accuracy(truth, square(100, 108, 200, (480, 854))) == 1.0
    assert boundary_accuracy(truth, square(100, 109, 200, (480, 854))) < 1.0


def test_a_full_frame_has_no_boundary():
    assert not boundary_map(np.ones((9, 9), bool)).any()


def test_box_side_is_the_longer_one_in_pixels():
    mask = np.zeros((20, 30), bool)
    mask[3:8, 10] = True
    mask[5, 4:11] = True
    assert box_side(mask) == 7
    assert box_side(mask.T) == 7
    assert box_side(np.zeros((4, 4), bool)) == 0


def test_a_keypoint_is_correct_up_to_alpha_sides_and_wrong_where_it_was_not_found():
    truth = np.array([[10, 10], [10, 10], [10, 10], [10, 10]], np.float32)
    found = np.array([[13, 14], [10, 15.5], [10, 10], [np.nan, np.nan]], np.float32)
    correct = correct_keypoints(truth, found, alpha=0.1, side=50.0)
    assert correct.tolist() == [True, False, True, False]
