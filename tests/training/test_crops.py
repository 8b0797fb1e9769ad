from __future__ import annotations

import numpy as np

from tests.training.pictures import smooth_noise
from training.crops import CropBatches, random_crop


def test_a_crop_is_a_square_of_the_asked_size():
    crop = random_crop(smooth_noise(0), 64, np.random.default_rng(0))
    assert crop.shape == (64, 64, 3)
    assert crop.dtype == np.uint8


def test_batches_are_a_function_of_seed_and_number():
    photos = [smooth_noise(seed) for seed in range(3)]
    crops = iter(CropBatches(photos, batch=2, size=32, seed=3, start=0))
    next(crops)
    assert (next(crops) == next(iter(CropBatches(photos, batch=2, size=32, seed=3, start=1)))).all()
