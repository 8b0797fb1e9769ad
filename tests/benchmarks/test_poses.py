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
    np.testing.assert_array_equal(predicted, draw_keypoints(pixels, pose(" ", "  ")))  # letters without ink
    np.testing.assert_array_equal(predicted, true)
    assert (draw_keypoints(pixels, named) != predicted).any(-1).sum() > 500
    dot = predicted[100, 150]
    assert dot.tolist() != pytest.approx([90, 90, 90], abs=5)
