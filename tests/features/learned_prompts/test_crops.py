from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from propagate.features.learned_prompts.targets import Crop, corners, random_crop, resized, whole

sides = st.integers(1, 200)
portions = st.floats(0.01, 1)


@settings(deadline=None, max_examples=25)
@given(st.tuples(sides, sides), st.floats(0, 1), st.floats(0, 1), portions, st.integers(0, 2**32 - 1))
def test_a_crop_lies_in_the_picture_and_keeps_its_point(size, across, down, portion, seed):
    height, width = size
    point = (across * (width - 1), down * (height - 1))
    crop = random_crop(size, point, portion, torch.Generator().manual_seed(seed))
    assert 0 <= crop.top <= crop.top + crop.height <= height
    assert 0 <= crop.left <= crop.left + crop.width <= width
    # within the pixel that the published rule rounds off
    assert crop.left <= point[0] < crop.left + crop.width + 1
    assert crop.top <= point[1] < crop.top + crop.height + 1


def test_the_point_is_well_inside_where_the_picture_has_room():
    generator = torch.Generator().manual_seed(0)
    for _ in range(100):
        crop = random_crop((400, 400), (200, 150), 0.25, generator)
        assert 15 <= 200 - crop.left <= 85
        assert 15 <= 150 - crop.top <= 85


def test_the_same_seed_gives_the_same_crop():
    first, second = (random_crop((90, 160), (80, 45), 0.5, torch.Generator().manual_seed(3)) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("size", [(64, 64), (48, 96)])
def test_the_corners_crops_cover_the_picture(size):
    seen = torch.zeros(size)
    for corner in corners(size):
        random_crop(size, corner, 0.93165, torch.Generator()).of(seen).add_(1)
    assert seen.min() >= 1


def test_an_enlarged_crop_has_the_pictures_size():
    picture = torch.arange(16.0).view(1, 1, 4, 4)
    crop = Crop(1, 2, 2, 2)
    torch.testing.assert_close(crop.of(picture)[0, 0], torch.tensor([[6.0, 7], [10, 11]]))
    enlarged = crop.enlarged(picture)
    assert enlarged.shape == picture.shape
    # half-pixel centers: the corners are those of the crop, what lies between is bilinear
    torch.testing.assert_close(enlarged[0, 0, 0], torch.tensor([6, 6.25, 6.75, 7]))
    assert resized(whole((4, 4)).of(picture), (4, 4)).equal(picture)
