from __future__ import annotations

import numpy as np
import pytest
import torch

from propagate.errors import InputError
from propagate.features.learned_prompts.targets import Crop, MaskTarget, PointTarget, label_names, targets_of, whole
from propagate.types import Keypoints, Mask

FRAME, SIZE = (60, 100), (48, 80)


def keypoints(*positions: tuple[float, float]) -> Keypoints:
    names = tuple("abcdef"[: len(positions)])
    return Keypoints(np.array(positions, np.float32), names)


def test_a_joints_gaussian_is_at_its_place_in_the_resized_frame():
    targets = targets_of(keypoints((49.5, 29.5), (np.nan, np.nan)), FRAME, SIZE, sigma=0.1)
    assert list(targets) == ["a"]  # the absent one has none
    assert targets["a"].center == pytest.approx((39.5, 23.5))
    found = targets["a"].in_crop(whole(SIZE), SIZE)
    rows, columns = torch.meshgrid(torch.arange(48), torch.arange(80), indexing="ij")
    expected = torch.exp(-((rows - 23.5) ** 2 + (columns - 39.5) ** 2) / (2 * 4.8**2))
    torch.testing.assert_close(found, expected)


def test_a_gaussian_moves_with_the_crop_and_keeps_its_width():
    target = PointTarget((30.0, 20.0), 5.0)
    found = target.in_crop(Crop(10, 24, 10, 40), SIZE)
    row, column = divmod(int(found.argmax()), 80)
    assert (column, row) == (40, 20)  # ((30 - 10) / 40 * 80, (20 - 10) / 24 * 48)
    assert float(found[20, 45]) == pytest.approx(np.exp(-0.5))


def test_objects_are_the_share_of_each_pixel_that_they_cover():
    ids = np.zeros(FRAME, np.uint8)
    ids[:30, :50] = 4
    ids[30:, 50:] = 9
    ids[0, 99] = 255
    mask = Mask(ids)
    targets = targets_of(mask, FRAME, (12, 20), sigma=0.1)
    assert tuple(targets) == label_names(mask) == ("4", "9")
    expected = torch.zeros(12, 20)
    expected[:6, :10] = 1
    torch.testing.assert_close(targets["4"].in_crop(whole((12, 20)), (12, 20)), expected)
    assert targets["4"].center == pytest.approx((4.5, 2.5))
    assert targets["9"].center == pytest.approx((14.5, 8.5))


def test_a_mask_moves_with_the_crop():
    cover = torch.zeros(8, 8)
    cover[2:4, 4:6] = 1
    found = MaskTarget(cover).in_crop(Crop(2, 4, 4, 4), (8, 8))
    assert found.shape == (8, 8)
    assert found[:3, :3].min() > 0.7
    assert found[5:].max() == 0


@pytest.mark.parametrize("outside", [(-1, 5), (5, -0.6), (99.6, 5), (5, 60)])
def test_a_joint_outside_the_frame_is_named(outside):
    with pytest.raises(InputError, match=r"Keypoint b at .* outside the 100x60 frame"):
        targets_of(keypoints((5, 5), outside), FRAME, SIZE, sigma=0.1)
