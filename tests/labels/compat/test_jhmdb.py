"""CRW's joint codec beyond what the reference data cover; those are in tests/parity."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from propagate.errors import InputError
from propagate.labels import JhmdbCodec
from propagate.types import Keypoints
from tests.labels.frames import black_frame

SIZE, GRID = (240, 320), (40, 40)


def label_at(cell_x: float, cell_y: float) -> Keypoints:
    return Keypoints(np.array([[cell_x * 8, cell_y * 6]], np.float32), ("joint",))


@pytest.mark.parametrize(
    ("position", "cell"),
    [(10, 10), (10.49, 10), (10.5, 11), (1.5, 2), (1.0, 2), (0.2, 1), (-1.2, 0)],
)
def test_where_the_peak_lies(position, cell):
    soft = JhmdbCodec(("joint",)).encode(label_at(position, 20), SIZE, GRID)
    assert soft[1, 20, cell] == 1
    assert (soft[1] == 1).sum() == 1


def test_the_patch():
    soft = JhmdbCodec(("joint",)).encode(label_at(10, 20), SIZE, GRID)[1]
    side, corner, far = np.exp(-2), np.exp(-4), np.exp(-8)
    expected = [far, side, 1, side]
    np.testing.assert_allclose(soft[20, 8:12], expected, rtol=1e-6)
    assert soft[21, 11] == pytest.approx(corner)
    assert (soft > 0).sum() == 16
    assert soft[20, 12] == 0


def test_background_is_where_no_joint_is():
    soft = JhmdbCodec(("joint",)).encode(label_at(10, 20), SIZE, GRID)
    assert ((soft[0] == 1) == (soft[1] == 0)).all()


@pytest.mark.parametrize("position", [(41.5, 20), (20, 41.5), (-2.6, 20), (np.nan, np.nan)])
def test_too_far_outside_is_absent(position):
    codec = JhmdbCodec(("joint",))
    soft = codec.encode(label_at(*position), SIZE, GRID)
    assert (soft[0] == 1).all()
    prediction = codec.decode(soft, black_frame(*SIZE))
    assert np.isnan(prediction.keypoints.positions).all()
    assert prediction.confidence == {"joint": 0}


def test_decoding_is_the_mean_of_the_three_highest_cells_in_pixels():
    soft = torch.zeros(2, 40, 40)
    soft[1, 10, 20], soft[1, 10, 21], soft[1, 12, 20], soft[1, 30, 30] = 0.5, 0.25, 0.25, 0.1
    prediction = JhmdbCodec(("joint",), ((0, 0),)).decode(soft, black_frame(*SIZE))
    np.testing.assert_allclose(prediction.keypoints.positions, [[20.25 * 8, 10.5 * 6]])
    assert prediction.confidence == {"joint": 0.5}
    assert prediction.keypoints.skeleton == ((0, 0),)


def test_a_grid_of_two_cells():
    soft = torch.ones(2, 1, 2)
    prediction = JhmdbCodec(("joint",)).decode(soft, black_frame(10, 20))
    np.testing.assert_allclose(prediction.keypoints.positions, [[5, 0]])


def test_other_joints_are_an_error():
    with pytest.raises(InputError, match=r"joint.*neck"):
        JhmdbCodec(("neck",)).encode(label_at(1, 1), SIZE, GRID)


def test_the_given_pose_is_its_own_prediction():
    label = label_at(3, 3)
    assert JhmdbCodec(("joint",)).given(label, black_frame(*SIZE)).keypoints is label
