"""PCK against videowalk's `eval_pck.py`."""

from __future__ import annotations

import numpy as np
import pytest

from propagate.metrics import jhmdb_normalisers, joint_pck, pck_distances
from tests.places import PARITY_DATA

JOINTS = 15
CELLS = 40  # per side of its grid


@pytest.fixture(scope="module")
def golden():
    return np.load(PARITY_DATA / "jhmdb_pck_0.npz")


@pytest.fixture(scope="module")
def clips(golden):
    """(truth, prediction) in pixels: float32 cells are brought to pixels in float32, and the truth is 1-based."""
    pairs = []
    for number in range(int(golden["n_clips"])):
        truth = golden[f"pos_img_{number}"].transpose(2, 1, 0).astype(np.float64) - 1
        size = golden[f"image_size_{number}"][::-1].astype(np.float32)
        prediction = golden[f"pred_grid_{number}"].transpose(2, 1, 0) / np.float32(CELLS) * size
        pairs.append((truth, prediction[: len(truth)]))
    return pairs


def distances(clips):
    found = []
    for truth, prediction in clips:
        visible = prediction[:, :, 0] >= 0
        found.append(pck_distances(truth, prediction, visible, jhmdb_normalisers(truth, visible))[1:])
    return found


def test_normalisers(golden, clips):
    for number, (truth, prediction) in enumerate(clips):
        found = jhmdb_normalisers(truth, prediction[:, :, 0] >= 0)
        np.testing.assert_allclose(found, golden[f"human_box_{number}"], rtol=1e-12)


def test_distances_and_what_counts(golden, clips):
    pooled = np.concatenate(distances(clips))
    for joint in range(JOINTS):
        counted = pooled[~np.isnan(pooled[:, joint]), joint]
        assert len(counted) == golden["n_counted_per_joint"][joint]
        np.testing.assert_allclose(counted, golden[f"dist_{joint}"], rtol=1e-9)  # an infinite one is among them


def test_percentages(golden, clips):
    for threshold, per_joint, mean in zip(golden["thresholds"], golden["pck_per_joint"], golden["pck"], strict=True):
        found = 100 * joint_pck(distances(clips), float(threshold))
        np.testing.assert_allclose(found, per_joint, rtol=0, atol=1e-9)
        assert found.mean() == pytest.approx(mean, rel=0, abs=1e-9)
