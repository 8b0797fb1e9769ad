from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from propagate.metrics import (
    boundary_accuracy,
    boundary_map,
    box_side,
    correct_keypoints,
    jhmdb_normalisers,
    joint_pck,
    pck_distances,
    region_similarity,
    statistics,
)
from tests.places import PARITY_DATA

DATA = PARITY_DATA


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


def direct_f(truth: np.ndarray, prediction: np.ndarray) -> float:
    """F by its definition: each boundary is dilated by writing a disc around every one of its points."""
    height, width = truth.shape
    radius = math.ceil(0.008 * math.hypot(height, width))
    boundaries = [boundary_map(mask) for mask in (truth, prediction)]
    if not all(boundary.any() for boundary in boundaries):
        return float(not any(boundary.any() for boundary in boundaries))
    dilated = []
    for boundary in boundaries:
        wide = np.zeros((height + 2 * radius, width + 2 * radius), bool)
        for y in range(2 * radius + 1):
            for x in range(2 * radius + 1):
                if (y - radius) ** 2 + (x - radius) ** 2 <= radius**2:
                    wide[y : y + height, x : x + width] |= boundary
        dilated.append(wide[radius : radius + height, radius : radius + width])
    recall, precision = dilated[1][boundaries[0]].mean(), dilated[0][boundaries[1]].mean()
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


@st.composite
def mask_pairs(draw):
    """Two blobs or two sets of single pixels, on pictures whose rows end anywhere within a word of 64 pixels."""
    size = draw(st.sampled_from([(1, 1), (1, 300), (200, 1), (5, 63), (40, 64), (33, 65), (70, 500), (129, 128)]))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if draw(st.booleans()):
        density = draw(st.sampled_from([0.0, 0.002, 0.05, 0.5, 1.0]))
        return tuple(generator.random(size) < density for _ in range(2))
    masks = np.zeros((2, *size), bool)
    for mask in masks:
        for _ in range(draw(st.integers(0, 3))):
            (top, bottom), (left, right) = (np.sort(generator.integers(0, side + 1, 2)) for side in size)
            mask[top:bottom, left:right] ^= True
    return tuple(masks)


@settings(deadline=None, max_examples=100)
@given(mask_pairs())
def test_f_is_that_of_its_definition(pair):
    assert boundary_accuracy(*pair) == pytest.approx(direct_f(*pair), abs=1e-12)


@settings(deadline=None, max_examples=50)
@given(mask_pairs())
def test_j_and_f_are_symmetric_and_bounded(pair):
    truth, prediction = pair
    for metric in (region_similarity, boundary_accuracy):
        assert 0 <= metric(truth, prediction) <= 1
        assert metric(truth, prediction) == pytest.approx(metric(prediction, truth), abs=1e-12)
        assert metric(truth, truth) == 1
        assert metric(truth, prediction, np.ones_like(truth)) == 1


def test_f_tolerates_18_pixels_at_full_hd_in_every_direction():
    size = (1080, 1920)
    point = np.zeros(size, bool)
    point[540, 960] = True  # on the boundary map a square of two by two, which reaches one pixel further
    for away, value in [((0, 18), 1), ((18, 0), 1), ((12, 13), 1), ((-13, -12), 1), ((0, 20), 0), ((14, -14), 0)]:
        assert boundary_accuracy(point, np.roll(point, away, (0, 1))) == value


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


def test_statistics_by_hand():
    found = statistics(np.array([1.0, 0.9, 0.5, 0.4, 0.2]))
    assert found.mean == pytest.approx(0.6)
    assert found.recall == pytest.approx(0.4)  # exactly one half is not above it
    assert found.decay == pytest.approx((1 + 0.9) / 2 - (0.4 + 0.2) / 2)  # quarters share the frame between them


def test_a_frame_without_a_value_is_missed_and_no_part_of_a_mean():
    found = statistics(np.array([1.0, np.nan, 1.0, 0.5]))
    assert (found.mean, found.recall) == (pytest.approx(2.5 / 3), 0.5)


@pytest.mark.parametrize("values", [[], [np.nan, np.nan]])
def test_statistics_of_nothing_are_not_numbers(values):
    found = statistics(np.array(values))
    assert math.isnan(found.mean)
    assert math.isnan(found.decay)


def test_the_normaliser_is_of_the_true_box_around_the_visible_joints():
    truth = np.array([[[0, 0], [30, 40], [900, 900]]] * 3, np.float32)
    visible = np.array([[True, True, False], [True, False, False], [False, False, False]])
    assert jhmdb_normalisers(truth, visible).tolist() == [pytest.approx(30), 0, 0]


def test_an_unknown_truth_is_no_part_of_the_box():
    truth = np.array([[[0, 0], [30, 40], [np.nan, np.nan]]])
    assert jhmdb_normalisers(truth, np.array([[True, True, False]])).tolist() == [pytest.approx(30)]


def test_distances_of_hidden_lost_and_found_joints():
    truth = np.array([[[0, 0], [10, 0], [0, 0], [5, 5]], [[0, 0], [0, 0], [0, 0], [0, 0]]], np.float64)
    prediction = truth + np.array([3, 4])
    prediction[0, 2] = np.nan
    visible = np.array([[True, False, True, True], [True, False, False, False]])
    found = pck_distances(truth, prediction, visible, np.array([10.0, 0.0]))
    nan = math.nan
    np.testing.assert_array_equal(found, [[0.5, nan, math.inf, 0.5], [math.inf, nan, nan, nan]])


def test_pck_pools_the_clips_and_includes_the_threshold():
    clips = [np.array([[0.1, math.nan, math.inf]]), np.array([[0.3, math.nan, 0.05], [0.2, math.nan, 0.2]])]
    np.testing.assert_allclose(joint_pck(clips, 0.2), [2 / 3, math.nan, 2 / 3])
