from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from propagate.geometry import grid_size, grid_to_pixels, pixels_to_grid, resize_frame, to_tensor, working_size

quick = settings(deadline=None, max_examples=25)
sizes = st.tuples(st.integers(1, 60), st.integers(1, 60))


@pytest.mark.parametrize(
    ("frame", "short_side", "multiple", "expected"),
    [
        ((480, 854), 480, 32, (480, 832)),
        ((480, 910), 480, 32, (480, 896)),
        ((480, 1152), 480, 32, (480, 1152)),
        ((720, 405), 480, 32, (832, 480)),
        ((300, 300), 480, 32, (480, 480)),
        ((480, 854), 480, 64, (448, 832)),
        ((1080, 1920), None, 32, (1056, 1920)),
        ((17, 300), None, 32, (32, 288)),
        ((100, 130), 20, 32, (32, 32)),
    ],
)
def test_working_size(frame, short_side, multiple, expected):
    assert working_size(frame, short_side=short_side, multiple=multiple) == expected


@quick
@given(sizes, st.integers(1, 64))
def test_working_size_keeps_the_orientation(frame, multiple):
    height, width = working_size(frame, short_side=480, multiple=multiple)
    turned = working_size(frame[::-1], short_side=480, multiple=multiple)
    assert turned == (width, height)
    assert (height <= width) == (frame[0] <= frame[1]) or height == width
    assert height % multiple == 0
    assert width % multiple == 0


@quick
@given(st.integers(1, 3000), st.integers(1, 3000))
def test_working_size_is_the_formula_of_the_davis_script(height, width):
    short, long = sorted((height, width))
    script = int((480 * long / short) // 32 * 32)
    expected = (480, script) if height <= width else (script, 480)
    assert working_size((height, width), short_side=480, multiple=32) == expected


@quick
@given(st.integers(1, 3000), st.integers(1, 3000))
def test_working_size_is_the_formula_of_dinos_script(height, width):
    short, long = sorted((height, width))
    script = max(int((480 * long / short) // 64 * 64), 64)
    expected = (480, script) if height <= width else (script, 480)
    for patch in (8, 16):
        assert working_size((height, width), short_side=480, multiple=patch, long_multiple=64) == expected


@pytest.mark.parametrize(
    ("frame", "short_side", "multiple", "long_multiple", "expected"),
    [
        ((480, 854), 960, 16, 1, (960, 1712)),  # DINOv3's notebook: 1708 up to a multiple of 16
        ((854, 480), 960, 16, 1, (1712, 960)),
        ((480, 854), 480, 14, 1, (490, 882)),  # the long side follows from 490
        ((300, 300), 480, 14, 1, (490, 490)),
        ((480, 854), 480, 14, 8, (490, 896)),  # multiples of 56
        ((32, 64), None, 16, 1, (32, 64)),
        ((3, 7), None, 16, 1, (16, 48)),
    ],
)
def test_working_size_rounded_up(frame, short_side, multiple, long_multiple, expected):
    size = working_size(frame, short_side=short_side, multiple=multiple, long_multiple=long_multiple, rounding="up")
    assert size == expected


def test_a_frame_of_the_right_size_is_left_alone():
    pixels = np.zeros((8, 12, 3), np.uint8)
    assert resize_frame(pixels, (8, 12)) is pixels


def test_resizing_is_half_pixel_bilinear():
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    for size in [(16, 20), (41, 64), (20, 29)]:
        expected = F.interpolate(to_tensor(pixels)[None] * 255, size=size, mode="bilinear", align_corners=False)[0]
        resized = to_tensor(resize_frame(pixels, size)) * 255
        assert resized.shape == (3, *size)
        assert (resized - expected).abs().max() <= 1  # OpenCV rounds to integers and its weights to 1/2048


def test_shrinking_by_more_than_two_reads_every_pixel():
    pixels = np.zeros((30, 30, 3), np.uint8)
    pixels[::3] = 240  # two-tap bilinear reads rows 1, 4, 7 and finds nothing
    assert resize_frame(pixels, (10, 10)).min() == 80
    assert resize_frame(pixels, (10, 10)).max() == 80


def test_to_tensor():
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    pixels.flags.writeable = False
    tensor = to_tensor(pixels)
    assert tensor.dtype == torch.float32
    assert tensor.is_contiguous()
    assert tensor.shape == (3, 2, 4)
    assert tensor[1, 0, 2] * 255 == pixels[0, 2, 1]
    assert to_tensor(np.full((1, 1, 3), 255, np.uint8)).max() == 1


def test_grid_size_counts_a_started_cell():
    assert grid_size((480, 832), 8) == (60, 104)
    assert grid_size((481, 9), 8) == (61, 2)
    assert grid_size((1, 1), 14) == (1, 1)


def test_the_corners_of_frame_and_grid_are_one():
    corners = np.array([[-0.5, -0.5], [853.5, 479.5]])
    np.testing.assert_allclose(pixels_to_grid(corners, (480, 854), (60, 104)), [[-0.5, -0.5], [103.5, 59.5]])


def test_a_cell_center_is_the_mean_of_its_pixels():
    pixels = np.array([[8 * 3 + i, 8 * 5 + i] for i in range(8)], np.float64)
    cells = pixels_to_grid(pixels, (80, 96), (10, 12))
    np.testing.assert_allclose(cells.mean(0), [3, 5])


@quick
@given(sizes, sizes, st.floats(-100, 100), st.floats(-100, 100))
def test_grid_and_pixels_are_inverse(frame, grid, x, y):
    points = np.array([[x, y]])
    np.testing.assert_allclose(grid_to_pixels(pixels_to_grid(points, frame, grid), frame, grid), points, atol=1e-9)


@quick
@given(st.integers(2, 9), st.integers(2, 9), st.integers(2, 60), st.integers(2, 60))
def test_points_follow_the_resizing_of_pictures(h, w, height, width):
    """A ramp of grid coordinates, up-sampled, holds at each pixel the coordinate that pixels_to_grid gives it."""
    ramp = torch.arange(w, dtype=torch.float64).repeat(h, 1)
    upsampled = F.interpolate(ramp[None, None], size=(height, width), mode="bilinear", align_corners=False)[0, 0]
    points = np.array([[x, 0] for x in range(width)], np.float64)
    expected = pixels_to_grid(points, (height, width), (h, w))[:, 0].clip(0, w - 1)
    np.testing.assert_allclose(upsampled[0].numpy(), expected, atol=1e-9)


def test_points_may_be_missing():
    points = np.array([[np.nan, np.nan], [1, 2]])
    assert np.isnan(pixels_to_grid(points, (10, 10), (5, 5))).any(1).tolist() == [True, False]
