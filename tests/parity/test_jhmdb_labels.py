"""Joints of CRW's `data/jhmdb.py` and `process_pose`: label maps and decoded positions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from propagate.labels import JhmdbCodec
from propagate.labels.compat.jhmdb import decode_cells
from propagate.types import Frame, Keypoints
from tests.places import PARITY_DATA

NAMES = tuple(f"joint {i}" for i in range(15))
# A fresh label has four equal cells for two places among its three highest: any choice is right.
TIE = 0.22


@pytest.fixture(scope="module")
def golden():
    return np.load(PARITY_DATA / "jhmdb_labels_0.npz")


def lost_as_script(cells: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(cells), -1, cells)


def test_encoding(golden):
    size, grid = tuple(map(int, golden["image_size"])), tuple(map(int, golden["grid"]))
    padding = int(golden["n_context"])
    for t, expected in enumerate(golden["labels"]):
        one_based = golden["pos_img"][:, :, max(t - padding, 0)].T
        label = Keypoints((one_based - 1).astype(np.float32), NAMES)
        np.testing.assert_allclose(JhmdbCodec(NAMES).encode(label, size, grid), expected, atol=1e-6, rtol=0)


def test_decoding_of_fresh_labels(golden):
    for soft, expected in zip(golden["labels"], golden["decoded"], strict=True):
        cells = lost_as_script(decode_cells(torch.from_numpy(soft)))
        np.testing.assert_allclose(cells, expected.T, atol=TIE, rtol=0)


def test_decoding_of_a_soft_map(golden):
    soft = torch.from_numpy(golden["soft_map"].astype(np.float32))
    cells = decode_cells(soft)
    np.testing.assert_allclose(lost_as_script(cells), golden["soft_map_decoded"].T, atol=1e-5, rtol=0)
    frame = Frame(np.zeros((240, 320, 3), np.uint8), 0, 0.0)
    keypoints = JhmdbCodec(NAMES).decode(soft, frame).keypoints
    np.testing.assert_allclose(keypoints.positions, cells * [320 / 40, 240 / 40], rtol=1e-6)
    assert keypoints.present.tolist() == [bool(channel.any()) for channel in soft[1:]]
