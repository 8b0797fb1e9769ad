from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from propagate.errors import InputError
from propagate.geometry import pixels_to_grid
from propagate.labels import KeypointCodec
from propagate.types import Keypoints
from tests.labels.frames import black_frame

quick = settings(deadline=None, max_examples=25)
encodings = pytest.mark.parametrize("encode", ["gaussian", "bilinear"])
fractions = st.floats(0, 1)


def pose(*positions: tuple[float, float]) -> Keypoints:
    return Keypoints(np.array(positions, np.float32).reshape(-1, 2), tuple(f"joint {i}" for i in range(len(positions))))


def there_and_back(codec: KeypointCodec, label: Keypoints, size: tuple[int, int], grid: tuple[int, int]) -> Keypoints:
    return codec.decode(codec.encode(label, size, grid), black_frame(*size)).keypoints


@encodings
@quick
@given(
    grid=st.tuples(st.integers(2, 30), st.integers(2, 30)),
    pixels_per_cell=st.tuples(st.integers(1, 16), st.integers(1, 16)),
    extra=st.tuples(st.integers(0, 7), st.integers(0, 7)),
    where=st.lists(st.tuples(fractions, fractions), min_size=1, max_size=6),
    sigma=st.floats(0.3, 2),
)
def test_round_trip_anywhere_in_the_frame(encode, grid, pixels_per_cell, extra, where, sigma):
    height, width = (cells * pixels + more for cells, pixels, more in zip(grid, pixels_per_cell, extra, strict=True))
    label = pose(*((x * width - 0.5, y * height - 0.5) for x, y in where))
    codec = KeypointCodec(label.names, encode=encode, sigma=sigma)
    result = there_and_back(codec, label, (height, width), grid)
    error = pixels_to_grid(result.positions, (height, width), grid) - pixels_to_grid(
        label.positions, (height, width), grid
    )
    assert np.abs(error).max() < 0.01  # promised: 0.1
    assert result.confidence == pytest.approx(1, abs=1e-5)


@encodings
def test_the_corners_of_the_frame(encode):
    label = pose((-0.5, -0.5), (95.5, -0.5), (-0.5, 63.5), (95.5, 63.5))
    result = there_and_back(KeypointCodec(label.names, encode=encode), label, (64, 96), (8, 12))
    np.testing.assert_allclose(result.positions, label.positions, atol=1e-3)
    assert result.positions.min() >= -0.5
    assert (result.positions <= [95.5, 63.5]).all()


@encodings
def test_an_axis_of_one_cell_answers_its_middle(encode):
    label = pose((10, 3), (0, 60))
    result = there_and_back(KeypointCodec(label.names, encode=encode), label, (64, 96), (1, 1))
    assert np.isfinite(result.positions).all()
    assert np.abs(pixels_to_grid(result.positions, (64, 96), (1, 1))).max() <= 0.5


@encodings
def test_channels_are_shares_and_the_rest_is_background(encode):
    label = pose((40, 30), (70.3, 12.8))
    soft = KeypointCodec(label.names, encode=encode).encode(label, (64, 96), (8, 12))
    assert soft.shape == (3, 8, 12)
    assert soft.dtype == torch.float32
    torch.testing.assert_close(soft[1:].sum((1, 2)), torch.ones(2))
    torch.testing.assert_close(soft[0], 1 - soft[1:].sum(0))


@encodings
def test_absent_joints_stay_absent(encode):
    label = pose((np.nan, np.nan), (20, 20), (-0.6, 5), (5, 63.6))
    codec = KeypointCodec(label.names, encode=encode)
    soft = codec.encode(label, (64, 96), (8, 12))
    assert soft.amax((1, 2))[1:].gt(0).tolist() == [False, True, False, False]
    prediction = codec.decode(soft, black_frame(64, 96))
    assert prediction.keypoints.present.tolist() == [False, True, False, False]
    assert prediction.confidence == pytest.approx({"joint 0": 0, "joint 1": 1, "joint 2": 0, "joint 3": 0}, abs=1e-5)


def test_a_pose_without_any_joint_in_sight():
    label = pose((np.nan, np.nan))
    soft = KeypointCodec(label.names).encode(label, (64, 96), (8, 12))
    assert (soft[0] == 1).all()
    assert not KeypointCodec(label.names).decode(soft, black_frame(64, 96)).keypoints.present.any()


def test_a_thinned_label_loses_confidence_and_then_the_joint():
    label = pose((40, 30))
    codec = KeypointCodec(label.names, absent=0.1)
    soft = codec.encode(label, (64, 96), (8, 12))
    weak = codec.decode(0.3 * soft, black_frame(64, 96)).keypoints
    np.testing.assert_allclose(weak.positions, label.positions, atol=1e-3)
    assert weak.confidence[0] == pytest.approx(0.3, abs=1e-5)
    lost = codec.decode(0.09 * soft, black_frame(64, 96))
    assert np.isnan(lost.keypoints.positions).all()
    assert lost.confidence == {"joint 0": 0}


def test_the_highest_spot_counts_and_the_other_lowers_the_confidence():
    label, other = pose((12, 12)), pose((80, 50))
    codec = KeypointCodec(label.names)
    soft = 0.6 * codec.encode(label, (64, 96), (8, 12)) + 0.4 * codec.encode(other, (64, 96), (8, 12))
    result = codec.decode(soft, black_frame(64, 96)).keypoints
    np.testing.assert_allclose(result.positions, label.positions, atol=0.1)
    assert result.confidence[0] == pytest.approx(0.6, abs=0.01)


@encodings
def test_a_label_spread_evenly_around_its_place_keeps_it(encode):
    """Blur, as matching spreads it: mean of nine shifts by a cell. No bias towards a cell's center."""
    size, grid = (96, 96), (12, 12)
    label = pose((43.2, 50.9))
    codec = KeypointCodec(label.names, encode=encode)
    soft = codec.encode(label, size, grid)
    blurred = sum(torch.roll(soft, (dy, dx), (1, 2)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)) / 9
    result = codec.decode(blurred, black_frame(*size)).keypoints
    np.testing.assert_allclose(result.positions, label.positions, atol=0.25 * 8)


def test_more_label_than_was_given_is_full_confidence():
    label = pose((40, 30))
    codec = KeypointCodec(label.names)
    prediction = codec.decode(1.7 * codec.encode(label, (64, 96), (8, 12)), black_frame(64, 96))
    assert prediction.confidence == {"joint 0": 1}


def test_other_joints_are_an_error():
    with pytest.raises(InputError, match=r"joint 0.*left, right"):
        KeypointCodec(("left", "right")).encode(pose((1, 1), (2, 2)), (64, 96), (8, 12))


def test_names_and_skeleton_are_handed_on():
    codec = KeypointCodec(("a", "b"), ((0, 1),))
    label = Keypoints(np.array([[3, 4], [50, 40]], np.float32), ("a", "b"))
    result = there_and_back(codec, label, (64, 96), (8, 12))
    assert result.names == ("a", "b")
    assert result.skeleton == ((0, 1),)


def test_the_given_pose_is_its_own_prediction():
    label = Keypoints(np.array([[3, 4]], np.float32), ("a",), confidence=np.array([0.25], np.float32))
    prediction = KeypointCodec(("a",)).given(label, black_frame(64, 96))
    assert prediction.keypoints is label
    assert prediction.confidence == {"a": 0.25}
    assert prediction.index == 7
