from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from propagate.metrics import boundary_accuracy, boundary_map, region_similarity

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
