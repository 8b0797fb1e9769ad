from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from propagate.labels.masks import area_matrix, interpolation_matrix, sample_nearest

quick = settings(deadline=None, max_examples=25)
lengths = st.integers(1, 40)


@quick
@given(lengths, st.integers(1, 12))
def test_area_of_whole_pixels_is_their_mean(cells, pixels_per_cell):
    values = torch.rand(cells * pixels_per_cell)
    averaged = area_matrix(cells * pixels_per_cell, cells) @ values
    torch.testing.assert_close(averaged, values.reshape(cells, pixels_per_cell).mean(1))


@quick
@given(lengths, lengths)
def test_area_shares_sum_to_one_and_use_every_pixel_alike(pixels, cells):
    matrix = area_matrix(pixels, cells)
    torch.testing.assert_close(matrix.sum(1), torch.ones(cells))
    torch.testing.assert_close(matrix.sum(0), torch.full((pixels,), cells / pixels))
    assert (matrix >= 0).all()


def test_area_of_a_fractional_cell():
    torch.testing.assert_close(area_matrix(3, 2), torch.tensor([[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]]))


@quick
@given(lengths, lengths, lengths, lengths, st.sampled_from(["bicubic", "bilinear"]))
def test_two_matrices_are_one_interpolation(h, w, height, width, mode):
    grid = torch.rand(h, w)
    expected = F.interpolate(grid[None, None], size=(height, width), mode=mode, align_corners=False)[0, 0]
    upsampled = interpolation_matrix(h, height, mode) @ grid @ interpolation_matrix(w, width, mode).T
    torch.testing.assert_close(upsampled, expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize(("pixels", "cells"), [(77, 8), (131, 12), (480, 60), (5, 9)])
def test_nearest_takes_the_pixel_at_the_center(pixels, cells):
    ids = np.arange(pixels).astype(np.uint8)[:, None]
    expected = np.floor((np.arange(cells) + 0.5) * pixels / cells).astype(np.uint8)
    assert sample_nearest(ids, (cells, 1))[:, 0].tolist() == expected.tolist()
