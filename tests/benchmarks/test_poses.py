from __future__ import annotations

import numpy as np
import pytest

from propagate.benchmarks.poses import pose_pictures
from propagate.formats import draw_keypoints
from propagate.types import Keypoints


def pose(*names: str) -> Keypoints:
    positions = np.array([[150, 100], [450, 250]], np.float32)
    return Keypoints(positions, names, ((0, 1),))


def test_compared_pictures_show_the_pose_without_names():
    pixels = np.full((480, 640, 3), 90, np.uint8)
    named = pose("left shoulder", "right ankle")
    everything = np.ones(2, bool)
    predicted, true, _ = pose_pictures(pixels, named, named, counted=everything, right=everything, tolerance=9)
    np.testing.assert_array_equal(predicted, draw_keypoints(pixels, named, names=False))
    np.testing.assert_array_equal(predicted, true)
    assert (draw_keypoints(pixels, named) != predicted).any(-1).sum() > 500
    dot = predicted[100, 150]
    assert dot.tolist() != pytest.approx([90, 90, 90], abs=5)


@pytest.mark.parametrize("far", [1e4, 1e9, 3e38, -3e38])
@pytest.mark.parametrize("tolerance", [0.0, 9.0, 1e5, 1e30, np.inf, np.nan])
def test_absurd_numbers_are_drawn_somewhere(far, tolerance):
    pixels = np.full((48, 64, 3), 90, np.uint8)
    everything = np.ones(2, bool)
    away = Keypoints(np.array([[far, 100], [30, far]], np.float32), ("a", "b"), ((0, 1),))
    near = Keypoints(np.array([[10, 10], [30, 30]], np.float32), ("a", "b"), ((0, 1),))
    for prediction, truth in ((away, near), (near, away), (away, away)):
        for picture in pose_pictures(
            pixels, prediction, truth, counted=everything, right=everything, tolerance=tolerance
        ):
            assert picture.shape == (480, 640, 3)


def test_a_circle_too_large_for_the_picture_is_not_in_it():
    pixels = np.full((480, 640, 3), 90, np.uint8)
    truth = pose("a", "b")
    drawn = [
        pose_pictures(pixels, truth, truth, counted=np.ones(2, bool), right=np.ones(2, bool), tolerance=tolerance)[2]
        for tolerance in (0.0, 1e30, 300.0)
    ]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert (drawn[0] != drawn[2]).any()
