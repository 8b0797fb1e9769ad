from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from skimage.color import rgb2lab

from propagate.benchmarks.davis.score import DIFFERENCE_COLORS, draw_difference
from propagate.types import Mask

# Machado, Oliveira, Fernandes: A physiologically-based model for simulation of color vision deficiency, IEEE TVCG
# 2009, table 1, severity 1.0, on linear RGB
VISION = {
    "full": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


@pytest.mark.parametrize("vision", VISION)
def test_colors_stay_apart_for_the_color_blind(vision):
    linear = (np.array(list(DIFFERENCE_COLORS.values())) / 255) ** 2.2
    seen = np.clip(linear @ np.array(VISION[vision]).T, 0, 1) ** (1 / 2.2)
    lab = rgb2lab(seen)
    assert min(np.linalg.norm(one - other) for one, other in combinations(lab, 2)) > 25


def test_each_pixel_by_hand_and_the_frame_is_left_alone():
    pixels = np.full((1, 5, 3), 90, np.uint8)
    truth, prediction = Mask(np.array([[1, 1, 0, 1, 0]], np.uint8)), Mask(np.array([[1, 0, 1, 2, 0]], np.uint8))
    drawn = draw_difference(pixels, truth, prediction)
    for column, name in enumerate(["hit", "missed", "false alarm", "wrong object"]):
        expected = 0.2 * 30 + 0.8 * np.array(DIFFERENCE_COLORS[name])
        assert drawn[0, column] == pytest.approx(expected, abs=0.5)
    assert drawn[0, 4].tolist() == [30, 30, 30]
    assert (pixels == 90).all()


def test_sizes_must_be_equal():
    small, large = Mask(np.zeros((2, 3), np.uint8)), Mask(np.zeros((3, 3), np.uint8))
    for truth, prediction in ((small, large), (large, small), (large, large)):
        with pytest.raises(ValueError, match="sizes differ"):
            draw_difference(np.zeros((2, 3, 3), np.uint8), truth, prediction)
